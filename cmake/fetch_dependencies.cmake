# LAZYLLM_FETCH_DEPENDENCIES: sources of Eigen and xsimd for those that are not installed. Headers only, nothing of
# theirs is built.
include(FetchContent)

find_package(Eigen3 QUIET GLOBAL)
if(NOT TARGET Eigen3::Eigen)
  FetchContent_Declare(eigen GIT_REPOSITORY https://gitlab.com/libeigen/eigen.git GIT_TAG 3.4.0 GIT_SHALLOW ON
                       SOURCE_SUBDIR headers_only)
  FetchContent_MakeAvailable(eigen)
  add_library(Eigen3::Eigen INTERFACE IMPORTED GLOBAL)
  set_target_properties(Eigen3::Eigen PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${eigen_SOURCE_DIR}")
endif()

find_package(xsimd QUIET)
if(NOT xsimd_FOUND)
  FetchContent_Declare(xsimd GIT_REPOSITORY https://github.com/xtensor-stack/xsimd.git GIT_TAG 13.0.0 GIT_SHALLOW ON
                       SOURCE_SUBDIR headers_only)
  FetchContent_MakeAvailable(xsimd)
  add_library(lazyllm::xsimd INTERFACE IMPORTED GLOBAL)
  set_target_properties(lazyllm::xsimd PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${xsimd_SOURCE_DIR}/include")
endif()
