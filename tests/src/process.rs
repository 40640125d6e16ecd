//! Child processes: their output line by line, their end, and their certain death.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::{sync::watch, time::timeout};

use crate::wait::LIMIT;

/// A running child in a process group of its own. Dropping it ends the group, waits for the end, and shows the log if the test is failing.
pub struct Process {
    name: String,
    pid: Pid,
    stdout: Arc<Lines>,
    stderr: Arc<Lines>,
    exit: watch::Receiver<Option<ExitStatus>>,
    reaper: Option<thread::JoinHandle<()>>,
}

/// What a command that has ended left.
#[derive(Debug, Clone)]
pub struct Output {
    /// What was run, for messages.
    pub name: String,
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with no input and captured output; `name` is for messages and logs.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn spawn(name: &str, command: Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = spawn_tied(command).unwrap_or_else(|e| panic!("{name}: cannot start {program}: {e}"));
        let pid = Pid::from_child(&child);
        let (stdout, stderr) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        stdout.collect(child.stdout.take());
        stderr.collect(child.stderr.take());
        let (exited, exit) = watch::channel(None);
        let reaper = thread::spawn(move || {
            // The group's number cannot belong to anybody else while its leader is unreaped: only now may the group be ended by it.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            let _ = kill_process_group(pid, Signal::KILL);
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(Signal::KILL.as_raw()));
            exited.send_replace(Some(status));
        });
        Self { name: name.into(), pid, stdout, stderr, exit, reaper: Some(reaper) }
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until a line of standard output passes `pick`, earlier lines included, and gives what it picked.
    ///
    /// # Panics
    /// When the stream ends first, or after [`LIMIT`].
    pub async fn stdout_line<T>(&self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.line(&self.stdout, what, pick).await
    }

    /// The same for standard error.
    ///
    /// # Panics
    /// When the stream ends first, or after [`LIMIT`].
    pub async fn stderr_line<T>(&self, what: &str, pick: impl FnMut(&str) -> Option<T>) -> T {
        self.line(&self.stderr, what, pick).await
    }

    /// All of standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// All of standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// True until the process has ended.
    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends SIGTERM to the process alone, as a service manager does.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGKILL to the whole group.
    pub fn kill(&self) {
        if self.is_running() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }

    /// Sends any signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits for the end, however it comes.
    ///
    /// # Panics
    /// When it has not ended after [`LIMIT`].
    pub async fn ended(&self) -> ExitStatus {
        self.ended_within(LIMIT).await
    }

    /// Waits for the end for a time of one's own.
    ///
    /// # Panics
    /// When it has not ended by then.
    pub async fn ended_within(&self, limit: Duration) -> ExitStatus {
        let mut exit = self.exit.clone();
        let ended = timeout(limit, exit.wait_for(Option::is_some)).await;
        match ended {
            Ok(Ok(status)) => status.unwrap_or_default(),
            _ => panic!("{} has not ended after {} s", self.name, limit.as_secs()),
        }
    }

    /// Waits for the end and for the last line of both streams.
    ///
    /// # Panics
    /// When that takes longer than `limit`.
    pub async fn output(&self, limit: Duration) -> Output {
        let status = self.ended_within(limit).await;
        for lines in [&self.stdout, &self.stderr] {
            let mut seen = lines.seen.subscribe();
            if timeout(LIMIT, seen.wait_for(|s| s.closed)).await.is_err() {
                panic!("{} has ended but its output has not: it left a process behind", self.name);
            }
        }
        Output { name: self.name.clone(), code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    async fn line<T>(&self, lines: &Lines, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let mut seen = lines.seen.subscribe();
        let mut next = 0;
        let search = async {
            loop {
                // Taken before the lines are read, so that a line which comes in between wakes the wait below.
                let closed = seen.borrow_and_update().closed;
                let fresh = lines.from(next);
                next += fresh.len();
                if let Some(found) = fresh.iter().find_map(|line| pick(line)) {
                    return Some(found);
                }
                if closed || seen.changed().await.is_err() {
                    return None;
                }
            }
        };
        match timeout(LIMIT, search).await {
            Ok(Some(found)) => found,
            Ok(None) => panic!("{} ended before {what}", self.name),
            Err(_) => panic!("{} has not shown {what} after {} s", self.name, LIMIT.as_secs()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(reaper) = self.reaper.take() {
            let _ = reaper.join();
        }
        if thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

impl Process {
    /// The ends of both streams, as a failing test shows them.
    pub(crate) fn log(&self) -> String {
        let mut log = String::new();
        for (stream, lines) in [("output", &self.stdout), ("log", &self.stderr)] {
            let all = lines.from(0);
            let skipped = all.len().saturating_sub(SHOWN);
            if !all.is_empty() {
                let _ = writeln!(log, "---- {} {} of {} ({skipped} earlier lines left out)", self.name, stream, self.id());
            }
            for line in all.iter().skip(skipped) {
                let _ = writeln!(log, "{line}");
            }
        }
        log
    }
}

/// Lines of each stream that a failing test shows.
const SHOWN: usize = 200;

/// Runs `command` to its end, within `limit`.
///
/// # Panics
/// When it cannot be started or takes longer.
pub async fn run(name: &str, command: Command, limit: Duration) -> Output {
    Process::spawn(name, command).output(limit).await
}

impl Output {
    /// Asserts exit code 0.
    ///
    /// # Panics
    /// On any other code, with the output.
    pub fn succeeded(&self) -> &Self {
        self.exited(0)
    }

    /// Asserts an exit code.
    ///
    /// # Panics
    /// On any other code, with the output.
    pub fn exited(&self, code: i32) -> &Self {
        assert!(self.code == Some(code), "{} should have exited with {code}:\n{self}", self.name);
        self
    }

    /// Asserts that one of the streams holds `text`.
    ///
    /// # Panics
    /// When neither does, with the output.
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "{} should have said {text:?}:\n{self}", self.name);
        self
    }

    /// Asserts that none of the streams holds `text`.
    ///
    /// # Panics
    /// When one does, with the output.
    pub fn never_says(&self, text: &str) -> &Self {
        assert!(!self.stdout.contains(text) && !self.stderr.contains(text), "{} should not have said {text:?}:\n{self}", self.name);
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Some(code) => writeln!(f, "exit code {code}")?,
            None => writeln!(f, "ended by a signal")?,
        }
        write!(f, "---- output\n{}---- log\n{}", self.stdout, self.stderr)
    }
}

/// The lines of one stream, and word of each new one.
struct Lines {
    lines: Mutex<Vec<String>>,
    seen: watch::Sender<Seen>,
}

#[derive(Default, Clone, Copy)]
struct Seen {
    count: usize,
    closed: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { lines: Mutex::default(), seen: watch::Sender::new(Seen::default()) }
    }
}

impl Lines {
    fn collect(self: &Arc<Self>, stream: Option<impl Read + Send + 'static>) {
        let Some(stream) = stream else { return self.seen.send_modify(|s| s.closed = true) };
        let lines = Arc::clone(self);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
                lines.lock().push(text);
                lines.seen.send_modify(|s| s.count += 1);
                line.clear();
            }
            lines.seen.send_modify(|s| s.closed = true);
        });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn from(&self, start: usize) -> Vec<String> {
        self.lock().get(start..).unwrap_or_default().to_vec()
    }

    fn text(&self) -> String {
        self.lock().iter().fold(String::new(), |text, line| text + line + "\n")
    }
}

/// Starts a child that the kernel ends when this program dies, however it dies.
///
/// The kernel watches the *thread* that starts the child, so one thread that lives as long as the program starts them all.
fn spawn_tied(command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, answer) = mpsc::channel();
    let gone = || std::io::Error::other("the thread that starts processes is gone");
    starter.lock().unwrap_or_else(PoisonError::into_inner).send((tied(command), reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// The command in a group of its own, under `setpriv` where that exists (it then becomes the program itself: the process id stays).
fn tied(command: Command) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let probe = || Command::new("setpriv").args(["--pdeathsig", "KILL", "--", "true"]).status().is_ok_and(|s| s.success());
    let mut tied = if *SETPRIV.get_or_init(probe) {
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => tied.env(key, value),
                None => tied.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            tied.current_dir(dir);
        }
        tied
    } else {
        command
    };
    tied.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    tied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn lines_code_and_streams_arrive() {
        let output = run("sh", sh("echo out; echo err >&2; printf last; exit 3"), LIMIT).await;
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(3), "out\nlast\n", "err\n"));
    }

    #[tokio::test]
    async fn a_line_is_found_whether_it_came_before_or_comes_after() {
        let process = Process::spawn("sh", sh("echo one; read never; echo two"));
        assert_eq!(process.stdout_line("one", |l| (l == "one").then_some(1)).await, 1);
        assert_eq!(process.stdout_line("two", |l| (l == "two").then_some(2)).await, 2);
        assert_eq!(process.ended().await.code(), Some(0));
    }

    #[tokio::test]
    async fn dropping_ends_the_children_of_the_child() {
        let process = Process::spawn("sh", sh("sleep 1000 & echo $!; wait"));
        let grandchild = process.stdout_line("a process id", |l| l.parse::<i32>().ok()).await;
        drop(process);
        let gone = || async { if alive(grandchild) { Err("it still runs") } else { Ok(()) } };
        crate::wait::until("the grandchild's end", gone).await;
    }

    /// A process that is dead but unreaped does not count.
    fn alive(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    #[tokio::test]
    #[should_panic(expected = "sh ended before the line that never comes")]
    async fn an_early_end_is_told() {
        Process::spawn("sh", sh("echo something else")).stdout_line("the line that never comes", |l| (l == "never").then_some(())).await;
    }
}
