// How many CPUs this process may use: the smaller of its affinity mask and its cgroup's CPU quota.
// std::thread::hardware_concurrency knows no quota, so in a container it starts more threads than may run.
// Source: sched_getaffinity(2), cgroups(7), the kernel's cgroup-v2 (cpu.max) and sched-bwc (cpu.cfs_quota_us)
// documents.
#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace lazyllm::inline v0 {

/// CPUs that this process may use, at least 1. Reads a few small files: call it once.
[[nodiscard]] std::size_t cpu_count();

/// The CPUs that a quota allows, rounded up, at least 1. nullopt: no quota, or not the text of one.
/// `cpu_max` is cgroup v2's file "QUOTA PERIOD" or "max PERIOD", in microseconds.
[[nodiscard]] std::optional<std::size_t> cpus_of_cgroup_v2(std::string_view cpu_max);
/// The same from cgroup v1's cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us.
[[nodiscard]] std::optional<std::size_t> cpus_of_cgroup_v1(std::string_view quota, std::string_view period);

/// The smallest quota of this process's cgroups and all their parents. `proc_self_cgroup` is the text of that file;
/// `root` is where the cgroup file systems are mounted. Files that are not there count as no quota.
[[nodiscard]] std::optional<std::size_t> cgroup_cpu_quota(std::string_view proc_self_cgroup,
                                                          const std::filesystem::path& root);

namespace detail {

/// Takes the next word off the front of `text`; words end at white space.
inline std::string_view next_word(std::string_view& text) {
  constexpr std::string_view space = " \t\r\n";
  text.remove_prefix(std::min(text.find_first_not_of(space), text.size()));
  const std::string_view word = text.substr(0, text.find_first_of(space));
  text.remove_prefix(word.size());
  return word;
}

/// A positive decimal number; nullopt for anything else.
inline std::optional<std::uint64_t> positive_number(std::string_view word) {
  std::uint64_t value = 0;
  const auto result = std::from_chars(word.data(), word.data() + word.size(), value);
  if (result.ec != std::errc() || result.ptr != word.data() + word.size() || value == 0) return std::nullopt;
  return value;
}

inline std::string text_of_small_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

/// nullopt counts as unlimited.
inline std::optional<std::size_t> smaller(std::optional<std::size_t> a, std::optional<std::size_t> b) {
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

/// The smallest quota of the cgroup `group` ("/a/b") and its parents up to `mount`, which is always looked at: inside a
/// container the names on the way to it may not be visible.
inline std::optional<std::size_t> quota_along(const std::filesystem::path& mount, std::string_view group) {
  std::optional<std::size_t> least;
  std::filesystem::path directory = mount;
  const auto look = [&] {
    least = smaller(least, cpus_of_cgroup_v2(text_of_small_file(directory / "cpu.max")));
    least = smaller(least, cpus_of_cgroup_v1(text_of_small_file(directory / "cpu.cfs_quota_us"),
                                             text_of_small_file(directory / "cpu.cfs_period_us")));
  };
  look();
  for (const std::filesystem::path& name : std::filesystem::path(group).relative_path()) {
    directory /= name;
    look();
  }
  return least;
}

inline std::optional<std::size_t> affinity_cpu_count() {
#if defined(__linux__)
  // The kernel refuses a mask smaller than its own: try larger ones.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 2) {
    cpu_set_t* const set = CPU_ALLOC(cpus);
    if (set == nullptr) break;
    const std::size_t size_bytes = CPU_ALLOC_SIZE(cpus);
    const int count = sched_getaffinity(0, size_bytes, set) == 0 ? CPU_COUNT_S(size_bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return static_cast<std::size_t>(count);
  }
#endif
  return std::nullopt;
}

}  // namespace detail

inline std::optional<std::size_t> cpus_of_cgroup_v2(std::string_view cpu_max) {
  const std::string_view quota = detail::next_word(cpu_max);
  return cpus_of_cgroup_v1(quota, cpu_max);
}

inline std::optional<std::size_t> cpus_of_cgroup_v1(std::string_view quota, std::string_view period) {
  const auto quota_us = detail::positive_number(detail::next_word(quota));
  const auto period_us = detail::positive_number(detail::next_word(period));
  if (!quota_us || !period_us) return std::nullopt;
  return static_cast<std::size_t>(*quota_us / *period_us + (*quota_us % *period_us != 0 ? 1 : 0));
}

inline std::optional<std::size_t> cgroup_cpu_quota(std::string_view proc_self_cgroup,
                                                   const std::filesystem::path& root) {
  std::optional<std::size_t> least;
  // Lines are HIERARCHY:CONTROLLERS:GROUP; version 2 has no controllers.
  for (std::size_t begin = 0; begin < proc_self_cgroup.size();) {
    const std::size_t end = std::min(proc_self_cgroup.find('\n', begin), proc_self_cgroup.size());
    const std::string_view line = proc_self_cgroup.substr(begin, end - begin);
    begin = end + 1;
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1);
    const std::string_view group = line.substr(second + 1);
    if (controllers.empty()) {
      least = detail::smaller(least, detail::quota_along(root, group));
      least = detail::smaller(least, detail::quota_along(root / "unified", group));
    } else if (("," + std::string(controllers) + ",").find(",cpu,") != std::string::npos) {
      // Mounted under its list of controllers; distributions add a link named "cpu".
      least = detail::smaller(least, detail::quota_along(root / controllers, group));
      least = detail::smaller(least, detail::quota_along(root / "cpu", group));
    }
  }
  return least;
}

inline std::size_t cpu_count() {
  std::optional<std::size_t> count = detail::affinity_cpu_count();
  if (!count) count = std::max<std::size_t>(1, std::thread::hardware_concurrency());
#if defined(__linux__)
  count = detail::smaller(count, cgroup_cpu_quota(detail::text_of_small_file("/proc/self/cgroup"), "/sys/fs/cgroup"));
#endif
  return *count;
}

}  // namespace lazyllm::inline v0
