//! What strace wrote, as calls.

use std::{
    collections::HashMap,
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{At, Call};
use crate::program;

/// Calls that change files, or tell which file a descriptor stands for.
const CALLS: &str = "open,openat,creat,close,dup,dup2,dup3,fcntl,write,writev,fsync,fdatasync,mkdir,mkdirat,symlink,symlinkat,link,linkat,\
    rename,renameat,renameat2,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat";

/// Calls that change files, too, and that the model does not know.
const UNKNOWN: &str =
    "openat2,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,copy_file_range,sendfile,splice,mknod,mknodat,sync_file_range";

/// Whether strace may look into processes here: some containers forbid it.
pub(super) fn is_allowed() -> bool {
    Command::new(program("strace")).args(["-qq", "-o", "/dev/null", "true"]).output().is_ok_and(|output| output.status.success())
}

/// The same command, recorded into a file.
pub(super) fn under_strace(command: &Command, file: &Path) -> Command {
    let mut strace = Command::new(program("strace"));
    // Strings in hexadecimal hold no character that means anything.
    strace.args(["-f", "-qq", "-xx", "-s", "1048576", "-e", "signal=none", "-e", &format!("trace={CALLS},{UNKNOWN}"), "-o"]).arg(file);
    strace.arg("--").arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(key, value),
            None => strace.env_remove(key),
        };
    }
    strace
}

/// The calls that succeeded, in the order in which they returned.
pub(super) fn parse(trace: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let (thread, line) = line.split_once(char::is_whitespace).unwrap_or_else(|| panic!("a line of strace: {line}"));
        let line = line.trim_start();
        if let Some(start) = line.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, start.trim_end().to_owned());
            continue;
        }
        let whole = match line.strip_prefix("<... ") {
            Some(rest) => {
                let (_, end) = rest.split_once(" resumed>").unwrap_or_else(|| panic!("a line of strace: {line}"));
                unfinished.remove(thread).unwrap_or_else(|| panic!("a call that never began: {line}")) + end
            }
            None => line.to_owned(),
        };
        // Threads that end with the program, and calls that its end cuts short.
        if !whole.starts_with("+++") && !whole.ends_with("<detached ...>") {
            calls.extend(call(&whole));
        }
    }
    calls
}

fn call(line: &str) -> Option<Call> {
    let fails = || panic!("a line of strace: {line}");
    let (text, result) = line.rsplit_once(" = ").unwrap_or_else(fails);
    // One that failed, or that the end of the program cut short.
    let result: i32 = result.split_whitespace().next()?.parse().ok().filter(|result| *result >= 0)?;
    let (name, arguments) = text.trim_end().strip_suffix(')').and_then(|text| text.split_once('(')).unwrap_or_else(fails);
    let arguments = Arguments { all: arguments.split(", ").collect(), line };
    let a = &arguments;
    Some(match name {
        "open" => a.open(a.path(0), a.text(1), 2, result),
        "openat" => a.open(a.at(0), a.text(2), 3, result),
        "creat" => a.open(a.path(0), "O_CREAT|O_TRUNC", 1, result),
        "close" => Call::Close { file: a.file(0) },
        "dup" | "dup2" | "dup3" => Call::Duplicate { file: a.file(0), other: result },
        "fcntl" if a.text(1).starts_with("F_DUPFD") => Call::Duplicate { file: a.file(0), other: result },
        "fcntl" => return None,
        "write" => Call::Write { file: a.file(0), bytes: a.written(result) },
        "writev" => Call::Write { file: a.file(0), bytes: a.written(result) },
        "fsync" | "fdatasync" => Call::Flush { file: a.file(0) },
        "mkdir" => Call::MakeFolder { at: a.path(0) },
        "mkdirat" => Call::MakeFolder { at: a.at(0) },
        "symlink" => Call::Symlink { target: a.path(0).path, at: a.path(1) },
        "symlinkat" => Call::Symlink { target: a.path(0).path, at: a.at(1) },
        "link" => Call::Link { old: a.path(0), new: a.path(1) },
        "linkat" => Call::Link { old: a.at(0), new: a.at(2) },
        "rename" => Call::Rename { old: a.path(0), new: a.path(1), exchange: false },
        "renameat" => Call::Rename { old: a.at(0), new: a.at(2), exchange: false },
        "renameat2" => Call::Rename { old: a.at(0), new: a.at(2), exchange: a.text(4).contains("RENAME_EXCHANGE") },
        "unlink" | "rmdir" => Call::Remove { at: a.path(0) },
        "unlinkat" => Call::Remove { at: a.at(0) },
        "chmod" => Call::Mode { at: a.path(0), mode: a.mode(1) },
        "fchmod" => Call::Mode { at: a.descriptor(0), mode: a.mode(1) },
        "fchmodat" => Call::Mode { at: a.at(0), mode: a.mode(2) },
        _ => Call::Unknown { call: line.to_owned(), on: a.files(name) },
    })
}

struct Arguments<'a> {
    all: Vec<&'a str>,
    line: &'a str,
}

impl Arguments<'_> {
    fn text(&self, at: usize) -> &str {
        self.all.get(at).unwrap_or_else(|| panic!("a line of strace: {}", self.line))
    }

    fn file(&self, at: usize) -> i32 {
        self.text(at).parse().unwrap_or_else(|error| panic!("a line of strace: {}: {error}", self.line))
    }

    fn mode(&self, at: usize) -> u32 {
        u32::from_str_radix(self.text(at), 8).unwrap_or_else(|error| panic!("a line of strace: {}: {error}", self.line))
    }

    fn descriptor(&self, at: usize) -> At {
        At { folder: Some(self.file(at)), path: PathBuf::new() }
    }

    fn path(&self, at: usize) -> At {
        At { folder: None, path: OsString::from_vec(self.bytes(self.text(at))).into() }
    }

    fn at(&self, at: usize) -> At {
        let folder = Some(self.text(at)).filter(|folder| *folder != "AT_FDCWD").map(|_| self.file(at));
        At { folder, ..self.path(at + 1) }
    }

    fn open(&self, at: At, flags: &str, mode: usize, file: i32) -> Call {
        let has = |flag| flags.split('|').any(|given| given == flag);
        let create = has("O_CREAT");
        let follow = !has("O_NOFOLLOW") && !has("O_EXCL");
        Call::Open { at, create, truncate: has("O_TRUNC"), follow, mode: if create { self.mode(mode) } else { 0 }, file }
    }

    /// All strings, up to the length that was written.
    fn written(&self, length: i32) -> Vec<u8> {
        let strings = self.all.iter().filter_map(|argument| argument.get(argument.find('"')?..argument.rfind('"')? + 1));
        let mut bytes: Vec<u8> = strings.flat_map(|string| self.bytes(string)).collect();
        assert!(bytes.len() >= usize::try_from(length).unwrap_or_default(), "cut short by strace: {}", self.line);
        bytes.truncate(usize::try_from(length).unwrap_or_default());
        bytes
    }

    /// The files of a call that the model does not know.
    fn files(&self, call: &str) -> Vec<At> {
        let descriptors = if matches!(call, "copy_file_range" | "sendfile" | "splice") { &[0, 1, 2][..] } else { &[0] };
        let paths = (0..self.all.len()).filter(|&at| self.text(at).starts_with('"')).map(|at| self.path(at));
        let descriptor = |&at: &usize| Some(At { folder: Some(self.text(at).parse().ok()?), path: PathBuf::new() });
        paths.chain(descriptors.iter().filter_map(descriptor)).collect()
    }

    /// `"\x6b\x65\x79"`.
    fn bytes(&self, string: &str) -> Vec<u8> {
        let inner = string.strip_prefix('"').and_then(|string| string.strip_suffix('"'));
        let bytes = inner.map(|inner| inner.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16)).collect::<Result<_, _>>());
        bytes.and_then(Result::ok).unwrap_or_else(|| panic!("a line of strace: {}", self.line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_calls() {
        let trace = r#"12  openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 5
13  fsync(7 <unfinished ...>
12  write(5, "\x6b\x65\x79", 3) = 2
13  <... fsync resumed>)              = 0
12  renameat2(AT_FDCWD, "\x61", 9, "\x62", RENAME_EXCHANGE) = 0
12  unlink("\x61") = -1 ENOENT (No such file or directory)
12  fcntl(5, F_DUPFD_CLOEXEC, 3) = 6
12  ftruncate(5, 10) = 0
12  writev(5, [{iov_base="\x61\x62", iov_len=2}, {iov_base="\x63", iov_len=1}], 2) = 3
12  close(5 <unfinished ...>
14  fcntl(8, F_GETFD <detached ...>
14  close(5) = ?
13  +++ exited with 0 +++
"#;
        let at = |folder, path: &str| At { folder, path: path.into() };
        assert_eq!(
            parse(trace),
            [
                Call::Open { at: at(None, "/a"), create: true, truncate: false, follow: false, mode: 0o600, file: 5 },
                Call::Write { file: 5, bytes: b"ke".to_vec() },
                Call::Flush { file: 7 },
                Call::Rename { old: at(None, "a"), new: at(Some(9), "b"), exchange: true },
                Call::Duplicate { file: 5, other: 6 },
                Call::Unknown { call: "ftruncate(5, 10) = 0".into(), on: vec![at(Some(5), "")] },
                Call::Write { file: 5, bytes: b"abc".to_vec() },
            ]
        );
    }
}
