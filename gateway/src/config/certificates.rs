//! The list `certificates:`: from what is written to what is valid.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    BadKeyType, CertName, Directory, Issuer, KeyType, Names,
    deployment::{
        BadHookUrl, BadMode, BadOwner, BadPassword, BadPlace, BadSignal, CaCertificate, Command, Deployment, Files, Hook, HookContent,
        HookUrl, KeyMode, Layout, Notification, Owner, Password, Place, Reload, SecretSource, SignalName, TlsSecret,
    },
    parse::{Parser, flat},
    spec::{
        CertificateSpec, DirectorySpec, ExecSpec, FilesSpec, FolderSpec, HookContentSpec, HookSpec, HttpSpec, LayoutSpec, NotifySpec,
        OneOrMany, SecretSpec, SignalSpec, StoreSpec,
    },
};

/// Longest name: it becomes a metric label, and a part of the names of files.
const LONGEST_NAME: usize = 100;
/// Older versions that stay in the archive of the live layout.
const KEEP: usize = 5;

/// Enough of a hash that no two paths have the same.
type PathHash = [u8; 16];

/// A certificate that is kept valid.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// What it is called, unique: lower-case letters, digits, `-`, `_` and `.`, a plain file name.
    pub name: Arc<str>,
    /// The names in it.
    pub names: Names,
    /// The CAs in the order in which they are tried, at least one; for a rehearsal, their staging directories. Certificates share them.
    pub directories: Vec<Arc<Directory>>,
    /// The kind of key.
    pub key_type: KeyType,
    /// Whether the key is kept when the certificate is renewed.
    pub reuse_key: bool,
    /// How long before its end it is renewed; `None` leaves that to the CA, or to its lifetime.
    pub renew_before: Option<Duration>,
    /// Whether this is a rehearsal: what is issued is deployed nowhere.
    pub dry_run: bool,
    /// Where it goes, and who learns of it; may be empty.
    pub deployment: Deployment,
}

/// What the entries of the list have to do with each other, and what they share.
struct Register<'a> {
    /// Where each directory's name stands in `issuer.directories`.
    known: HashMap<&'a str, usize>,
    specs: &'a [DirectorySpec],
    /// `None` if something is wrong with them, which is told elsewhere.
    issuer: Option<&'a Issuer>,
    /// The directories as entries want them.
    made: HashMap<Wanted, Option<Arc<Directory>>>,
    names: HashSet<Arc<str>>,
    /// Which entry writes a file, or links it, by a hash of its path: the paths themselves would take more memory than all else.
    paths: HashMap<PathHash, Arc<str>>,
    /// Which entry writes a Secret.
    secrets: HashMap<String, Arc<str>>,
    /// `/etc/passwd` is not read for each entry anew.
    owners: HashMap<String, Result<Owner, BadOwner>>,
}

/// A directory of the list as an entry wants it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Wanted {
    index: usize,
    profile: Option<String>,
    preferred_chain: Option<String>,
    staging: bool,
}

impl Parser<'_> {
    /// `issuer` is `None` if something is wrong with the directories.
    pub(super) fn certificates(
        &mut self,
        specs: Vec<CertificateSpec>,
        directories: &[DirectorySpec],
        issuer: Option<&Issuer>,
    ) -> Option<Vec<Certificate>> {
        let mut register = Register {
            known: directories.iter().enumerate().rev().map(|(index, directory)| (directory.name.as_str(), index)).collect(),
            specs: directories,
            issuer,
            made: HashMap::new(),
            names: HashSet::with_capacity(specs.len()),
            paths: HashMap::new(),
            secrets: HashMap::new(),
            owners: HashMap::new(),
        };
        let mut certificates = Some(Vec::with_capacity(specs.len()));
        for (index, spec) in specs.into_iter().enumerate() {
            add(&mut certificates, self.certificate(&spec, &mut register, &format!("certificates[{index}]")));
        }
        certificates
    }

    fn certificate(&mut self, spec: &CertificateSpec, register: &mut Register<'_>, path: &str) -> Option<Certificate> {
        let name: Arc<str> = spec.name.as_str().into();
        self.certificate_name(&name, register, path);
        let names = self.certificate_names(&spec.names, &format!("{path}.names"));
        let directories = self.certificate_directories(spec, register, path);
        let key_type = spec.key_type.parse().map_err(|error: BadKeyType| self.wrong(&format!("{path}.key_type"), error.to_string()));
        let renew_before = spec.renew_before.as_ref().map(|text| self.duration(text, &format!("{path}.renew_before")));
        let (mut files, mut secrets) = (Some(Vec::new()), Some(Vec::new()));
        for (index, store) in spec.store.iter().enumerate() {
            let path = format!("{path}.store[{index}]");
            match store {
                StoreSpec::Files(folder) => add(&mut files, self.files(folder, &name, register, &format!("{path}.files"))),
                StoreSpec::Secret(secret) => add(&mut secrets, self.tls_secret(secret, &name, register, &format!("{path}.secret"))),
            }
        }
        // There may be a hundred thousand of them.
        files.iter_mut().for_each(Vec::shrink_to_fit);
        secrets.iter_mut().for_each(Vec::shrink_to_fit);
        let mut notifications = Some(Vec::with_capacity(spec.notify.len()));
        for (index, notify) in spec.notify.iter().enumerate() {
            add(&mut notifications, self.notification(notify, &format!("{path}.notify[{index}]")));
        }
        Some(Certificate {
            names: names?,
            directories: directories?,
            key_type: key_type.ok()?,
            reuse_key: spec.reuse_key,
            renew_before: flat(renew_before)?,
            dry_run: spec.dry_run,
            deployment: Deployment { name: name.clone(), files: files?, secrets: secrets?, notifications: notifications? },
            name,
        })
    }

    fn certificate_name(&mut self, name: &Arc<str>, register: &mut Register<'_>, path: &str) {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=LONGEST_NAME).contains(&name.len())
            && name.bytes().next().is_some_and(letter)
            && name.bytes().all(|byte| letter(byte) || b"-_.".contains(&byte));
        if !fits {
            let message = format!(
                "{:?} is not a name such as www (1 to {LONGEST_NAME} lower-case letters, digits, -, _ and ., the first a letter or a digit)",
                name
            );
            self.wrong(&format!("{path}.name"), message);
        } else if !register.names.insert(name.clone()) {
            self.wrong(&format!("{path}.name"), format!("{:?} stands here twice", name));
        }
    }

    fn certificate_names(&mut self, texts: &[String], path: &str) -> Option<Names> {
        let names = texts
            .iter()
            .enumerate()
            .map(|(index, text)| text.parse::<CertName>().map_err(|error| self.wrong(&format!("{path}[{index}]"), error.to_string())).ok());
        let names = names.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()?;
        Names::new(names).map_err(|error| self.wrong(path, error.to_string())).ok()
    }

    fn certificate_directories(&mut self, spec: &CertificateSpec, register: &mut Register<'_>, path: &str) -> Option<Vec<Arc<Directory>>> {
        for (key, text) in [("profile", &spec.profile), ("preferred_chain", &spec.preferred_chain)] {
            if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
                self.wrong(&format!("{path}.{key}"), "is empty: leave it out to take the directory's");
            }
        }
        let first = match &spec.directory {
            Some(name) => self.known_directory(name, register, &format!("{path}.directory")),
            None if register.specs.is_empty() => {
                self.wrong(path, "has no CA to ask: add one to issuer.directories");
                None
            }
            None => Some(0),
        };
        let mut wanted = Vec::with_capacity(1 + spec.fallbacks.len());
        wanted.extend(first.map(|index| Wanted {
            index,
            profile: spec.profile.clone(),
            preferred_chain: spec.preferred_chain.clone(),
            staging: spec.dry_run,
        }));
        let mut right = first.is_some();
        for (number, name) in spec.fallbacks.iter().enumerate() {
            let path = format!("{path}.fallbacks[{number}]");
            match self.known_directory(name, register, &path) {
                Some(index) if wanted.iter().any(|other| other.index == index) => {
                    self.wrong(&path, format!("{name:?} is already tried before: name each directory once"));
                    right = false;
                }
                Some(index) => wanted.push(Wanted { index, profile: None, preferred_chain: None, staging: spec.dry_run }),
                None => right = false,
            }
        }
        if !right {
            return None;
        }
        let mut directories = Vec::with_capacity(wanted.len());
        for (number, wanted) in wanted.into_iter().enumerate() {
            let index = wanted.index;
            match (register.directory(wanted)?, number) {
                (Some(directory), _) => directories.push(directory),
                // A fallback without staging directory is no part of a rehearsal.
                (None, 1..) => {}
                (None, 0) => {
                    let name = register.specs.get(index).map_or("", |spec| &spec.name);
                    self.wrong(
                        &format!("{path}.dry_run"),
                        format!(
                            "no staging directory of {name:?} is known: give its URL as `staging` of the directory in issuer.directories"
                        ),
                    );
                    return None;
                }
            }
        }
        Some(directories)
    }

    fn known_directory(&mut self, name: &str, register: &Register<'_>, path: &str) -> Option<usize> {
        let index = register.known.get(name).copied();
        if index.is_none() {
            let known = match register.specs {
                [] => String::new(),
                specs => format!(", or name one of {}", specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")),
            };
            self.wrong(path, format!("{name:?} is not among issuer.directories: add it there first{known}"));
        }
        index
    }

    fn files(&mut self, spec: &FilesSpec, certificate: &Arc<str>, register: &mut Register<'_>, path: &str) -> Option<Files> {
        let full = spec.full();
        let at = |key: &str| format!("{path}.{key}");
        let folder = if matches!(spec, FilesSpec::Folder(_)) { path.to_owned() } else { at("folder") };
        if full.folder.as_os_str().is_empty() {
            self.wrong(&folder, "is empty: name a folder, such as ./certs");
        }
        let name = full.name.clone().unwrap_or_else(|| certificate.to_string());
        if full.name.is_some() && !Files::is_file_name(&name) {
            self.wrong(&at("name"), format!("{name:?} is not a plain file name, such as www"));
        }
        let layout = self.layout(&full, path);
        let owner = match spec {
            FilesSpec::Full(full) => full.owner.as_deref().map(|text| {
                let owner = match register.owners.get(text) {
                    Some(owner) => owner.clone(),
                    None => register.owners.entry(text.to_owned()).or_insert(text.parse()).clone(),
                };
                owner.map_err(|error| self.wrong(&at("owner"), format!("{text:?}: {error}"))).ok()
            }),
            FilesSpec::Folder(_) => None,
        };
        let key_mode: Result<KeyMode, _> =
            full.mode.parse().map_err(|error: BadMode| self.wrong(&at("mode"), format!("{:?} is {error}", full.mode)));
        let files = Files { folder: full.folder, name, layout: layout?, owner: flat(owner)?, key_mode: key_mode.ok()? };
        for file in places(&files) {
            let shown = files.folder.join(&file);
            // `./certs` and `certs/.` are one folder.
            match register.paths.entry(hash(&shown)) {
                Entry::Vacant(free) => {
                    free.insert(certificate.clone());
                }
                Entry::Occupied(taken) => {
                    let advice = match files.layout {
                        Layout::Flat => "give each a folder of its own, or a layout whose files have names (live, pem or pkcs12)",
                        Layout::Live { .. } | Layout::Pem | Layout::Pkcs12 { .. } => "give it another folder or name",
                    };
                    let message = format!("the certificate {:?} writes {}, too: {advice}", taken.get(), shown.display());
                    self.wrong(&folder, message);
                    return None;
                }
            }
        }
        Some(files)
    }

    fn layout(&mut self, spec: &FolderSpec, path: &str) -> Option<Layout> {
        if spec.keep.is_some() && spec.layout != LayoutSpec::Live {
            self.wrong(&format!("{path}.keep"), "has no effect without \"layout: live\": only that keeps older versions");
        }
        if spec.layout == LayoutSpec::Pkcs12 {
            let (file, variable) = (spec.password_file.as_deref(), spec.password_env.as_deref());
            let (key, text) = self.secret(path, "password", file, variable)?;
            let judged = text.parse::<Password>();
            judged.map_err(|error: BadPassword| self.wrong(&key, format!("holds {error}"))).ok()?;
            return Some(Layout::Pkcs12 { password: source(file, variable)? });
        }
        for (key, given) in [("password_file", spec.password_file.is_some()), ("password_env", spec.password_env.is_some())] {
            if given {
                self.wrong(&format!("{path}.{key}"), "has no effect without \"layout: pkcs12\": only that has a password");
            }
        }
        match spec.layout {
            LayoutSpec::Flat => Some(Layout::Flat),
            LayoutSpec::Pem => Some(Layout::Pem),
            LayoutSpec::Live => Some(Layout::Live { keep: spec.keep.map_or(Some(KEEP), |keep| usize::try_from(keep).ok())? }),
            LayoutSpec::Pkcs12 => None,
        }
    }

    fn tls_secret(&mut self, spec: &SecretSpec, certificate: &Arc<str>, register: &mut Register<'_>, path: &str) -> Option<TlsSecret> {
        let (name, ca, force, path) = match spec {
            SecretSpec::Place(name) => (name, false, false, path.to_owned()),
            SecretSpec::Full(full) => (&full.name, full.ca, full.force, format!("{path}.name")),
        };
        let place = self.place(name, &path)?;
        if let Some(other) = register.secrets.insert(place.to_string(), certificate.clone()) {
            self.wrong(&path, format!("the certificate {other:?} writes the Secret {place}, too: give it another"));
        }
        Some(TlsSecret { place, ca: if ca { CaCertificate::LastOfChain } else { CaCertificate::None }, force })
    }

    fn place(&mut self, text: &str, path: &str) -> Option<Place> {
        text.parse().map_err(|error: BadPlace| self.wrong(path, format!("{text:?} is {error}"))).ok()
    }

    fn notification(&mut self, spec: &NotifySpec, path: &str) -> Option<Notification> {
        Some(match spec {
            NotifySpec::Exec(exec) => Notification::Command(self.command(exec, &format!("{path}.exec"))?),
            NotifySpec::Http(http) => Notification::Hook(Box::new(self.hook(http, &format!("{path}.http"))?)),
            NotifySpec::Signal(signal) => Notification::Reload(self.signal(signal, &format!("{path}.signal"))?),
            NotifySpec::SystemdReload(unit) => {
                let reload = Reload::systemd(unit);
                let path = format!("{path}.systemd_reload");
                Notification::Reload(reload.map_err(|error| self.wrong(&path, format!("{unit:?} is {error}"))).ok()?)
            }
            NotifySpec::RolloutRestart(place) => {
                Notification::Reload(Reload::Deployment(self.place(place, &format!("{path}.rollout_restart"))?))
            }
        })
    }

    fn command(&mut self, spec: &ExecSpec, path: &str) -> Option<Command> {
        match spec {
            ExecSpec::Line(line) => Some(Command { argv: self.line(line, path)?, limit: Command::LIMIT }),
            ExecSpec::Words(words) => Some(Command { argv: self.words(words, path)?, limit: Command::LIMIT }),
            ExecSpec::Full(full) => {
                let limit = self.duration(&full.timeout, &format!("{path}.timeout"));
                let path = format!("{path}.command");
                let argv = match &full.command {
                    OneOrMany::One(line) => self.line(line, &path),
                    OneOrMany::Many(words) => self.words(words, &path),
                };
                Some(Command { argv: argv?, limit: limit? })
            }
        }
    }

    fn line(&mut self, line: &str, path: &str) -> Option<Vec<String>> {
        // The text may hold a secret: only the complaint is told.
        Command::words(line).map_err(|error| self.wrong(path, format!("is no command: {error}"))).ok()
    }

    fn words(&mut self, words: &[String], path: &str) -> Option<Vec<String>> {
        if words.first().is_some_and(|program| !program.is_empty()) {
            return Some(words.to_vec());
        }
        self.wrong(path, "is no command: it names no program");
        None
    }

    fn hook(&mut self, spec: &HttpSpec, path: &str) -> Option<Hook> {
        match spec {
            HttpSpec::Url(url) => self.hook_url(url, path).map(Hook::at),
            HttpSpec::Full(full) => self.full_hook(full, path),
        }
    }

    fn full_hook(&mut self, spec: &HookSpec, path: &str) -> Option<Hook> {
        let at = |key: &str| format!("{path}.{key}");
        let url = self.hook_url(&spec.url, &at("url"));
        let limit = self.duration(&spec.timeout, &at("timeout"));
        let (file, variable) = (spec.token_file.as_deref(), spec.token_env.as_deref());
        if (file.is_some() || variable.is_some())
            && let Some((key, token)) = self.secret(path, "token", file, variable)
            && !is_token(token.trim())
        {
            self.wrong(&key, "holds no token: it has to be one word of ASCII characters");
        }
        if let Some(file) = &spec.ca_file {
            self.readable(file, &at("ca_file"));
        }
        let send = match spec.send {
            HookContentSpec::Event => HookContent::Event,
            HookContentSpec::Certificate => HookContent::Certificate,
            HookContentSpec::Key => HookContent::Key,
        };
        let url = url?;
        if !url.is_private() {
            let advice = "anybody on the way could read it: use https://";
            if send == HookContent::Key {
                self.wrong(&at("send"), format!("a key does not go to {url} in clear, where {advice}"));
            }
            for (key, given) in [("token_file", file.is_some()), ("token_env", variable.is_some())] {
                if given {
                    self.wrong(&at(key), format!("a token does not go to {url} in clear, where {advice}"));
                }
            }
        }
        if spec.ca_file.is_some() && url.as_url().scheme() != "https" {
            self.wrong(&at("ca_file"), "has no effect without https://");
        }
        Some(Hook { url, token: source(file, variable), send, limit: limit?, ca_file: spec.ca_file.clone() })
    }

    fn hook_url(&mut self, text: &str, path: &str) -> Option<HookUrl> {
        // The text may hold a secret: only the complaint is told.
        text.parse().map_err(|error: BadHookUrl| self.wrong(path, format!("is {error}"))).ok()
    }

    fn signal(&mut self, spec: &SignalSpec, path: &str) -> Option<Reload> {
        let (pid_file, signal, file_path) = match spec {
            SignalSpec::PidFile(pid_file) => (pid_file, Some(SignalName::HUP), path.to_owned()),
            SignalSpec::Full(full) => {
                let signal = full.signal.parse();
                let signal =
                    signal.map_err(|error: BadSignal| self.wrong(&format!("{path}.signal"), format!("{:?} is {error}", full.signal)));
                (&full.pid_file, signal.ok(), format!("{path}.pid_file"))
            }
        };
        if pid_file.as_os_str().is_empty() {
            self.wrong(&file_path, "is empty: name a file, such as /run/haproxy.pid");
            return None;
        }
        Some(Reload::Signal { pid_file: pid_file.clone(), signal: signal? })
    }
}

impl Register<'_> {
    /// The directory as an entry wants it. `None` if something is wrong with the directories; inside, `None` if it has no staging directory.
    #[expect(clippy::option_option, reason = "outer: were the directories right; inner: is it there")]
    fn directory(&mut self, wanted: Wanted) -> Option<Option<Arc<Directory>>> {
        let issuer = self.issuer?;
        let made = self.made.entry(wanted.clone()).or_insert_with(|| {
            let mut directory = issuer.directories.get(wanted.index)?.clone();
            directory.profile = wanted.profile.or(directory.profile);
            directory.preferred_chain = wanted.preferred_chain.or(directory.preferred_chain);
            if wanted.staging { issuer.staging(&directory).map(Arc::new) } else { Some(Arc::new(directory)) }
        });
        Some(made.clone())
    }
}

fn add<T>(all: &mut Option<Vec<T>>, one: Option<T>) {
    match (one, &mut *all) {
        (Some(one), Some(all)) => all.push(one),
        (None, _) => *all = None,
        (Some(_), None) => {}
    }
}

fn source(file: Option<&Path>, variable: Option<&str>) -> Option<SecretSource> {
    match (file, variable) {
        (Some(file), _) => Some(SecretSource::File(file.to_owned())),
        (None, Some(variable)) => Some(SecretSource::Variable(variable.to_owned())),
        (None, None) => None,
    }
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn hash(path: &Path) -> PathHash {
    let absolute = std::path::absolute(path);
    let path = absolute.as_deref().unwrap_or(path);
    let mut hash = PathHash::default();
    blake3::Hasher::new().update(path.as_os_str().as_encoded_bytes()).finalize_xof().fill(&mut hash);
    hash
}

/// The files that are written in the folder, or what stands for all of them.
fn places(files: &Files) -> Vec<String> {
    match files.layout {
        Layout::Flat => ["privkey", "cert", "chain", "fullchain"].map(|file| format!("{file}.pem")).to_vec(),
        Layout::Live { .. } => vec![format!("live/{}", files.name)],
        Layout::Pem => vec![format!("{}.pem", files.name)],
        Layout::Pkcs12 { .. } => vec![format!("{}.p12", files.name)],
    }
}

#[cfg(test)]
mod tests;
