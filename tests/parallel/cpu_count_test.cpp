#include <doctest/doctest.h>
#include <lazyllm/parallel/cpu_count.hpp>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#endif

namespace {

/// A tree of small files that is removed at the end.
class FakeCgroups {
 public:
  FakeCgroups() {
    static int number = 0;
    root_ = std::filesystem::temp_directory_path() /
            ("lazyllm_cpu_count_" + std::to_string(::getpid()) + "_" + std::to_string(++number));
  }
  ~FakeCgroups() { std::filesystem::remove_all(root_); }
  FakeCgroups(const FakeCgroups&) = delete;
  FakeCgroups& operator=(const FakeCgroups&) = delete;

  void write(const std::string& path, std::string_view text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  [[nodiscard]] const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
};

}  // namespace

TEST_CASE("a quota is rounded up to whole CPUs") {
  CHECK(lazyllm::cpus_of_cgroup_v2("200000 100000\n") == 2);
  CHECK(lazyllm::cpus_of_cgroup_v2("200001 100000\n") == 3);
  CHECK(lazyllm::cpus_of_cgroup_v2("150000 100000") == 2);
  CHECK(lazyllm::cpus_of_cgroup_v2("1000 100000") == 1);
  CHECK(lazyllm::cpus_of_cgroup_v1("350000\n", "100000\n") == 4);
}

TEST_CASE("a missing, unlimited or unreadable quota is no quota") {
  for (const std::string_view text : {"", "\n", "max 100000\n", "200000", "0 100000", "-1 100000", "200000 0", "2x 3",
                                      "99999999999999999999999 100000"}) {
    CAPTURE(text);
    CHECK_FALSE(lazyllm::cpus_of_cgroup_v2(text));
  }
  CHECK_FALSE(lazyllm::cpus_of_cgroup_v1("-1\n", "100000\n"));
  CHECK_FALSE(lazyllm::cpus_of_cgroup_v1("", ""));
}

TEST_CASE("the smallest quota from the group up to the mount counts") {
  const FakeCgroups files;
  files.write("cpu.max", "max 100000\n");
  files.write("a/cpu.max", "300000 100000\n");
  files.write("a/b/cpu.max", "800000 100000\n");
  CHECK(lazyllm::cgroup_cpu_quota("0::/a/b\n", files.root()) == 3);
  CHECK(lazyllm::cgroup_cpu_quota("0::/a", files.root()) == 3);
  CHECK_FALSE(lazyllm::cgroup_cpu_quota("0::/\n", files.root()));
  CHECK_FALSE(lazyllm::cgroup_cpu_quota("", files.root()));
  CHECK_FALSE(lazyllm::cgroup_cpu_quota("no colons\nonly:one\n", files.root()));
}

TEST_CASE("a version 1 quota is found under the list of controllers, and at the mount when the group is not visible") {
  const FakeCgroups files;
  files.write("cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
  files.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  CHECK(lazyllm::cgroup_cpu_quota("12:memory:/x\n4:cpu,cpuacct:/docker/hidden\n0::/\n", files.root()) == 3);
  CHECK_FALSE(lazyllm::cgroup_cpu_quota("12:memory:/x\n4:cpuset:/\n", files.root()));
  const FakeCgroups link;
  link.write("cpu/group/cpu.cfs_quota_us", "100000");
  link.write("cpu/group/cpu.cfs_period_us", "100000");
  CHECK(lazyllm::cgroup_cpu_quota("4:cpuacct,cpu:/group\n", link.root()) == 1);
}

TEST_CASE("cpu_count is at least 1 and follows the affinity mask") {
  CHECK(lazyllm::cpu_count() >= 1);
#if defined(__linux__)
  cpu_set_t before;
  REQUIRE(sched_getaffinity(0, sizeof(before), &before) == 0);
  CHECK(lazyllm::cpu_count() <= static_cast<std::size_t>(CPU_COUNT(&before)));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  REQUIRE(sched_setaffinity(0, sizeof(one), &one) == 0);
  CHECK(lazyllm::cpu_count() == 1);
  REQUIRE(sched_setaffinity(0, sizeof(before), &before) == 0);
#endif
}
