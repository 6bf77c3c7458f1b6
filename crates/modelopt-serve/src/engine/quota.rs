//! How many threads may compute at once here.
//!
//! A container has the processors of its host, but only so much time on them: more threads than that
//! stop each other. So the quota of the cgroup counts, and not how many processors there are.

use std::num::NonZero;
use std::path::{Path, PathBuf};

/// Threads that this process can keep busy: the quota of its cgroup rounded up, and never more than the
/// processors that it may run on.
pub fn usable_processors() -> usize {
    usable_under(Path::new("/"))
}

/// The same where the system's files lie below `root`.
fn usable_under(root: &Path) -> usize {
    let processors = allowed_processors(root)
        .or_else(|| std::thread::available_parallelism().ok().map(NonZero::get))
        .unwrap_or(1);
    let quota = quota_under(root).map_or(processors, |quota| quota.ceil() as usize);
    quota.min(processors).max(1)
}

/// Processors that the process may run on. `available_parallelism` would round the quota down.
fn allowed_processors(root: &Path) -> Option<usize> {
    let status = fs_err::read_to_string(root.join("proc/self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().split(',').map(width).sum::<Option<usize>>().filter(|&count| count > 0)
}

/// How many numbers `3` or `0-7` stands for.
fn width(range: &str) -> Option<usize> {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    last.checked_sub(first)?.checked_add(1)
}

/// Processors' worth of time that the tightest cgroup around the process grants.
fn quota_under(root: &Path) -> Option<f64> {
    let groups = fs_err::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let unified = group_of(&groups, str::is_empty);
    let mounted = root.join("sys/fs/cgroup");
    let v2 = tightest(&mounted, unified, |folder| {
        quota_v2(&fs_err::read_to_string(folder.join("cpu.max")).ok()?)
    });
    let cpu = group_of(&groups, |names| names.split(',').any(|name| name == "cpu"));
    let v1 = ["cpu", "cpu,cpuacct"]
        .iter()
        .filter_map(|controller| tightest(&mounted.join(controller), cpu, quota_v1));
    v2.into_iter().chain(v1).reduce(f64::min)
}

/// The group of the process in the hierarchy with these controllers.
fn group_of(groups: &str, has: impl Fn(&str) -> bool) -> &str {
    let group = groups.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(':')?;
        has(controllers).then_some(group)
    });
    group.unwrap_or("/")
}

/// The least that a group and those around it grant. Inside a container the group may be named as the
/// host sees it, and then only the mount itself is there.
fn tightest(mounted: &Path, group: &str, read: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let group = group.trim_start_matches('/');
    let mut folders: Vec<PathBuf> =
        Path::new(group).ancestors().map(|part| mounted.join(part)).collect();
    folders.push(mounted.to_owned());
    folders.iter().filter_map(|folder| read(folder)).reduce(f64::min)
}

/// `cpu.max`: quota and period in microseconds; `max` is no quota.
fn quota_v2(text: &str) -> Option<f64> {
    let mut words = text.split_whitespace();
    let quota: f64 = words.next()?.parse().ok()?;
    let period: f64 = words.next().map_or(Some(100_000.0), |word| word.parse().ok())?;
    share(quota, period)
}

/// `cpu.cfs_quota_us` of `cpu.cfs_period_us`; -1 is no quota.
fn quota_v1(folder: &Path) -> Option<f64> {
    let read = |name: &str| -> Option<f64> {
        fs_err::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    share(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn share(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn usable(files: &[(&str, &str)]) -> usize {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        usable_under(root.path())
    }

    const MANY: (&str, &str) = ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-5,8,10-11\n");

    #[test]
    fn a_quota_is_rounded_up_and_bounded_by_processors() {
        let max = "sys/fs/cgroup/cpu.max";
        assert_eq!(usable(&[MANY, (max, "max 100000\n")]), 9);
        assert_eq!(usable(&[MANY, (max, "250000 100000\n")]), 3);
        assert_eq!(usable(&[MANY, (max, "20000 100000\n")]), 1);
        assert_eq!(usable(&[MANY, (max, "5000000 100000\n")]), 9);
        assert_eq!(usable(&[MANY, (max, "garbage")]), 9);
        assert_eq!(usable(&[MANY]), 9);
    }

    #[test]
    fn the_tightest_of_nested_groups_counts() {
        let own = ("proc/self/cgroup", "0::/pods/web\n");
        let outer = ("sys/fs/cgroup/pods/cpu.max", "200000 100000\n");
        let inner = ("sys/fs/cgroup/pods/web/cpu.max", "400000 100000\n");
        let other = ("sys/fs/cgroup/pods/other/cpu.max", "100000 100000\n");
        assert_eq!(usable(&[MANY, own, outer, inner, other]), 2);
        // A container that is named as its host sees it.
        let mounted = ("sys/fs/cgroup/cpu.max", "300000 100000\n");
        assert_eq!(usable(&[MANY, ("proc/self/cgroup", "0::/../outside\n"), mounted]), 3);
    }

    #[test]
    fn the_old_hierarchy_is_read_too() {
        let own = ("proc/self/cgroup", "7:memory:/m\n4:cpu,cpuacct:/docker/abc\n");
        let folder = "sys/fs/cgroup/cpu,cpuacct/docker/abc";
        let (quota, period) =
            (format!("{folder}/cpu.cfs_quota_us"), format!("{folder}/cpu.cfs_period_us"));
        assert_eq!(usable(&[MANY, own, (&quota, "150000\n"), (&period, "100000\n")]), 2);
        assert_eq!(usable(&[MANY, own, (&quota, "-1\n"), (&period, "100000\n")]), 9);
    }

    #[test]
    fn where_nothing_is_told_the_machine_is_asked() {
        let machine = std::thread::available_parallelism().unwrap().get();
        assert_eq!(usable(&[]), machine);
        assert!(usable_processors() >= 1);
    }
}
