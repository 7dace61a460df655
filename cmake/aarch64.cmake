# Toolchain: from Debian on any CPU to AArch64 with its cross compiler; the programs run under qemu-user.
# Header-only packages are this machine's own. Its include directory comes last, behind the target's.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# The vectoriser of g++ 12.2 for AArch64 crashes on the tests' double-precision attention.
set(CMAKE_CXX_FLAGS_INIT "-idirafter /usr/include -fno-tree-loop-vectorize")
set(CMAKE_PREFIX_PATH /usr/lib/${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu/cmake)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
