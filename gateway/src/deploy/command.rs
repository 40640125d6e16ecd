//! A program that is run once the certificate is in place: no shell, a time limit, its output in the log.
//!
//! It gets acmegate's environment and beside it ([`variables`]):
//!
//! | Variable | |
//! |---|---|
//! | `ACMEGATE_NAME` | what the certificate is called |
//! | `ACMEGATE_NAMES` | the names in the certificate, separated by blanks |
//! | `ACMEGATE_NOT_AFTER` | when it ends: `2027-02-10T00:00:00Z` |
//! | `ACMEGATE_FOLDER` | the folder with its files |
//! | `ACMEGATE_KEY`, `ACMEGATE_CERTIFICATE`, `ACMEGATE_CHAIN`, `ACMEGATE_FULLCHAIN`, `ACMEGATE_PEM`, `ACMEGATE_PKCS12` | the files, those that there are |
//! | `RENEWED_LINEAGE`, `RENEWED_DOMAINS` | folder and names once more, as hooks of certbot want them |
//!
//! Where the certificate lies in several folders, these are the files of the first one that has such a file.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader},
    process::Child,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Command, DeployError, Ended, Event, Part, absolute, rfc3339};

/// How long a program may take after it was asked to end.
const GRACE: Duration = Duration::from_secs(5);
/// How long its output is followed after its end: a process that it left behind may hold the streams for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Lines of both streams that go to the log; what comes after them is read and counted.
const MOST_LINES: usize = 500;
/// Bytes of a line that go to the log.
const LONGEST_LINE: usize = 1000;
/// Lines that stand in an error, and bytes of each.
const SAID_LINES: usize = 3;
const SAID_BYTES: usize = 200;

impl Command {
    pub(super) async fn run(&self, variables: &BTreeMap<&'static str, OsString>, stop: &CancellationToken) -> Result<(), DeployError> {
        let (program, arguments) = self.argv.split_first().ok_or_else(|| DeployError::NotStarted("no program is named".into()))?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).envs(variables).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| DeployError::NotStarted(error.to_string()))?;
        let output = Output::new(program);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let streams = async {
            tokio::join!(output.follow("stdout", stdout), output.follow("stderr", stderr));
        };
        tokio::pin!(streams);
        let ended = {
            let end = self.end(&mut child, stop);
            tokio::pin!(end);
            tokio::select! {
                ended = &mut end => {
                    let _ = timeout(LAST_WORDS, &mut streams).await;
                    ended
                }
                () = &mut streams => end.await,
            }
        };
        let said = output.close();
        match ended {
            Ended::Code(0) => Ok(()),
            ended => Err(DeployError::Program { ended, said }),
        }
    }

    /// Waits for the end, or brings it about.
    async fn end(&self, child: &mut Child, stop: &CancellationToken) -> Ended {
        let why = tokio::select! {
            status = child.wait() => return of_itself(status),
            () = sleep(self.limit) => Ended::Late(self.limit),
            () = stop.cancelled() => Ended::Stopped,
        };
        if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::TERM);
            // The group's number cannot belong to anybody else while its leader is not reaped: until then the rest of the group may be ended by it.
            let ended = tokio::task::spawn_blocking(move || waitid(WaitId::Pid(group), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT));
            let _ = timeout(GRACE, ended).await;
            let _ = kill_process_group(group, Signal::KILL);
        }
        // Even SIGKILL does not end who hangs in the kernel.
        let _ = timeout(GRACE, child.wait()).await;
        why
    }
}

/// What a program is told of a certificate and its files, by variable.
pub(super) fn variables(&Event { name, issued, written }: &Event<'_>) -> BTreeMap<&'static str, OsString> {
    let names = OsString::from(issued.names.join(" "));
    let not_after = rfc3339(issued.not_after);
    let mut variables = BTreeMap::from([
        ("ACMEGATE_NAME", name.into()),
        ("ACMEGATE_NAMES", names.clone()),
        ("ACMEGATE_NOT_AFTER", not_after.into()),
        ("RENEWED_DOMAINS", names),
    ]);
    if let Some(first) = written.first() {
        variables.insert("ACMEGATE_FOLDER", absolute(&first.folder).into());
        variables.insert("RENEWED_LINEAGE", absolute(&first.folder).into());
    }
    for (part, path) in written.iter().flat_map(|written| &written.files) {
        let variable = match part {
            Part::Key => "ACMEGATE_KEY",
            Part::Fullchain => "ACMEGATE_FULLCHAIN",
            Part::Certificate => "ACMEGATE_CERTIFICATE",
            Part::Chain => "ACMEGATE_CHAIN",
            Part::Pem => "ACMEGATE_PEM",
            Part::Pkcs12 => "ACMEGATE_PKCS12",
        };
        variables.entry(variable).or_insert_with(|| absolute(path).into());
    }
    variables
}

fn of_itself(status: std::io::Result<ExitStatus>) -> Ended {
    match status.map(|status| (status.code(), status.signal())) {
        Ok((Some(code), _)) => Ended::Code(code),
        Ok((None, signal)) => Ended::Signal(signal.unwrap_or_default()),
        // Somebody else has reaped it: it is not known how it ended.
        Err(_) => Ended::Signal(0),
    }
}

/// Both streams of a program.
struct Output<'a> {
    program: &'a str,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    lines: usize,
    last: VecDeque<String>,
}

impl<'a> Output<'a> {
    fn new(program: &'a str) -> Self {
        Self { program, heard: Mutex::default() }
    }

    /// Logs a stream line by line to its end.
    async fn follow(&self, stream: &str, from: Option<impl AsyncRead + Unpin>) {
        let Some(from) = from else { return };
        let mut from = BufReader::new(from);
        while let Some(line) = read_line(&mut from).await {
            self.hear(stream, &printable(&line));
        }
    }

    fn hear(&self, stream: &str, line: &str) {
        let mut heard = self.heard.lock();
        heard.lines += 1;
        if heard.lines <= MOST_LINES {
            tracing::info!(program = self.program, stream, line, "output");
        }
        if !line.trim().is_empty() {
            if heard.last.len() == SAID_LINES {
                heard.last.pop_front();
            }
            heard.last.push_back(line.trim().chars().take(SAID_BYTES).collect());
        }
    }

    /// The last lines.
    fn close(&self) -> Vec<String> {
        let heard = std::mem::take(&mut *self.heard.lock());
        if let Some(more) = heard.lines.checked_sub(MOST_LINES).filter(|&more| more > 0) {
            tracing::warn!(program = self.program, lines = more, "more output, which is left out");
        }
        heard.last.into()
    }
}

/// The first bytes of the next line; `None` at the end.
async fn read_line(from: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let chunk = from.fill_buf().await.ok()?;
        if chunk.is_empty() {
            return any.then_some(line);
        }
        any = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let room = LONGEST_LINE.saturating_sub(line.len());
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        let used = end.map_or(chunk.len(), |end| end + 1);
        from.consume(used);
        if end.is_some() {
            return Some(line);
        }
    }
}

/// Nothing that moves a terminal's cursor.
fn printable(line: &[u8]) -> String {
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Runs a program of the system with the usual care: for reloads.
pub(super) async fn run_program(program: &str, arguments: &[&str], limit: Duration, stop: &CancellationToken) -> Result<(), DeployError> {
    let argv = std::iter::once(program).chain(arguments.iter().copied()).map(str::to_owned).collect();
    let variables: BTreeMap<&'static str, OsString> = BTreeMap::from([("LC_ALL", OsStr::new("C").to_owned())]);
    Command { argv, limit }.run(&variables, stop).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{deploy::Written, issuer::Authority};

    fn sh(script: &str, limit: Duration) -> Command {
        Command { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), limit }
    }

    async fn run(script: &str) -> Result<(), String> {
        let issued = Authority::new().issue(&["one.test", "*.one.test"]);
        let written = Written { folder: "/somewhere".into(), files: vec![(Part::Key, "/somewhere/privkey.pem".into())] };
        let ran = sh(script, Duration::from_secs(60))
            .run(&variables(&Event { name: "one", issued: &issued, written: &[written] }), &CancellationToken::new())
            .await;
        ran.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_program_knows_the_files_and_its_code_is_told() {
        assert_eq!(run("exit 0").await, Ok(()));
        let told = r#"test "$ACMEGATE_NAME" = one -a "$ACMEGATE_NAMES" = "one.test *.one.test" -a "$RENEWED_DOMAINS" = "$ACMEGATE_NAMES" \
            -a "$RENEWED_LINEAGE" = /somewhere -a "$ACMEGATE_FOLDER" = /somewhere -a "$ACMEGATE_KEY" = /somewhere/privkey.pem -a -z "${ACMEGATE_PEM+x}" && \
            case "$ACMEGATE_NOT_AFTER" in 2*T*:*Z|4*T*:*Z) ;; *) exit 9;; esac"#;
        assert_eq!(run(told).await, Ok(()));
        assert_eq!(run("echo one; echo two >&2; exit 3").await.map_err(|error| error.contains("exit code 3; it said: ")), Err(true));
        assert_eq!(run("exit 4").await, Err("it ended with exit code 4".into()));
        assert_eq!(run("kill -USR1 $$").await, Err(format!("it was ended by signal {}", Signal::USR1.as_raw())));
        let missing = Command { argv: vec!["/no/such/program".into()], limit: GRACE };
        let error = missing.run(&BTreeMap::new(), &CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.starts_with("it cannot be started: No such file"), "{error}");
    }

    #[tokio::test]
    async fn output_without_end_is_bounded() {
        let error = run("i=0; while test $i -lt 3000; do echo line $i; i=$((i+1)); done; head -c 300000 /dev/zero | tr '\\0' x; exit 1")
            .await
            .unwrap_err();
        assert!(error.starts_with("it ended with exit code 1; it said: line 2998 | line 2999 | xxx"), "{error}");
        assert!(error.len() < 400, "{error}");
        let mut long: &[u8] = &[b'x'; 5000];
        assert_eq!(read_line(&mut long).await.map(|line| line.len()), Some(LONGEST_LINE));
        assert_eq!(read_line(&mut long).await, None);
        assert_eq!(printable(b"a\x1b[2Jb\xff"), "a [2Jb\u{fffd}");
    }

    /// What it left behind holds the streams; it does not hold us.
    #[tokio::test]
    async fn a_daemon_that_a_program_starts_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        run(&format!("sleep 1000 & echo $! > {}", pid.display())).await.unwrap();
        let left = std::fs::read_to_string(pid).unwrap().trim().parse().ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(left, Signal::KILL).expect("it still runs");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
        let (reader, writer) = std::io::pipe().unwrap();
        // Whoever of the group lives holds the pipe's other end.
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&writer));
        let script = format!("exec 9>{path}; (trap '' TERM; sleep 1000) & trap 'echo asked to end; exit 0' TERM; wait");
        let error = sh(&script, Duration::from_millis(300)).run(&BTreeMap::new(), &CancellationToken::new()).await.unwrap_err();
        drop(writer);
        assert_eq!(error.to_string(), "it was ended because it took longer than 300ms; it said: asked to end");
        let gone = tokio::task::spawn_blocking(move || std::io::copy(&mut { reader }, &mut std::io::sink()));
        timeout(Duration::from_secs(60), gone).await.expect("the whole group is gone").unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_order_to_stop_ends_it() {
        let stop = CancellationToken::new();
        stop.cancel();
        let error = sh("sleep 1000", Duration::from_secs(1000)).run(&BTreeMap::new(), &stop).await.unwrap_err();
        assert!(matches!(error, DeployError::Program { ended: Ended::Stopped, .. }), "{error}");
    }
}
