//! What a process has used: CPU time and memory, as the kernel counts them.

use std::{fs, process::Command, time::Duration};

use anyhow::Context;

/// The unit of times in `/proc/PID/stat` (`USER_HZ`), the same on every Linux.
const TICKS: u64 = 100;

/// User and system time of all threads of a process, those that have ended included; counted in hundredths of a second.
///
/// # Errors
/// When the process is gone.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    times(&format!("/proc/{pid}/stat"), 11, 12)
}

/// The sum of two fields of a `stat` file, counted from after the program's name.
fn times(file: &str, user: usize, system: usize) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(file).with_context(|| file.to_owned())?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').context("no name in stat")?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("no times in stat");
    Ok(Duration::from_millis((ticks(user)? + ticks(system)?) * 1000 / TICKS))
}

/// User and system time of the children of this program that have ended, and of theirs; counted in hundredths of a second.
///
/// # Errors
/// When the kernel does not tell.
pub fn children() -> anyhow::Result<Duration> {
    times("/proc/self/stat", 13, 14)
}

/// CPU time of the thread that calls.
///
/// # Errors
/// When the kernel does not tell.
pub fn this_thread() -> anyhow::Result<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Resident memory of a process, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process ever had, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn peak(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmHWM:")
}

/// What of it is the process's own and stands in no file, in bytes.
///
/// # Errors
/// When the process is gone.
pub fn anonymous(pid: u32) -> anyhow::Result<u64> {
    status(pid, "RssAnon:")
}

fn status(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field} in status"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}

/// Keeps every thread of a process, and those it will start, on one core.
///
/// # Errors
/// When `taskset` cannot do it.
pub fn pin(pid: u32, core: usize) -> anyhow::Result<()> {
    taskset(&["-a", "-p", "-c", &core.to_string(), &pid.to_string()])
}

/// Keeps the thread that calls on one core.
///
/// # Errors
/// When `taskset` cannot do it.
pub fn pin_this_thread(core: usize) -> anyhow::Result<()> {
    let link = fs::read_link("/proc/thread-self")?;
    let thread = link.file_name().context("no thread in /proc/thread-self")?.to_string_lossy().into_owned();
    taskset(&["-p", "-c", &core.to_string(), &thread])
}

fn taskset(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(crate::program("taskset")).args(arguments).output()?;
    anyhow::ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How busy the machine is with other things: the load average of the last minute.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() -> anyhow::Result<()> {
        let pid = std::process::id();
        let before = cpu(pid)?;
        while cpu(pid)? == before {
            std::hint::spin_loop();
        }
        assert!(resident(pid)? > 1 << 20);
        assert!(anonymous(pid)? < resident(pid)? && resident(pid)? <= peak(pid)?);
        Ok(())
    }
}
