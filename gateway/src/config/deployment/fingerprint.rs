//! Whether a deployment is still the one that was done.

use std::path::Path;

use super::{CaCertificate, Deployment, Files, HookContent, Layout, Notification, Reload, SecretSource, TlsSecret};

/// Changes when what is hashed, or how, does: everything is then deployed once more.
const VERSION: &str = "acmegate deployment 1";

impl Deployment {
    /// A hash (64 hexadecimal digits) over everything that decides where the certificate goes and who is told: while it stays the same, nothing has to be
    /// deployed again. Of secrets it knows the place and not the text, and time limits do not count.
    pub fn fingerprint(&self) -> String {
        let mut print = Print(blake3::Hasher::new());
        print.text(VERSION);
        print.count(self.files.len());
        for files in &self.files {
            print.files(files);
        }
        print.count(self.secrets.len());
        for TlsSecret { place, ca, force } in &self.secrets {
            print.text(place.to_string());
            print.flag(matches!(ca, CaCertificate::LastOfChain));
            print.flag(*force);
        }
        print.count(self.notifications.len());
        for notification in &self.notifications {
            print.notification(notification);
        }
        print.0.finalize().to_hex().to_string()
    }
}

/// Every item is hashed with its length, so that no two lists of items look the same.
struct Print(blake3::Hasher);

impl Print {
    fn text(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn count(&mut self, number: usize) {
        self.0.update(&(number as u64).to_le_bytes());
    }

    fn flag(&mut self, set: bool) {
        self.0.update(&[u8::from(set)]);
    }

    /// Relative paths count from where acmegate is started.
    fn path(&mut self, path: &Path) {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.text(path.as_os_str().as_encoded_bytes());
    }

    fn optional<T>(&mut self, value: Option<T>, print: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            print(self, value);
        }
    }

    fn files(&mut self, files: &Files) {
        let Files { folder, name, layout, owner, key_mode } = files;
        self.path(folder);
        self.text(name);
        match layout {
            Layout::Flat => self.text("flat"),
            Layout::Live { keep } => {
                self.text("live");
                self.count(*keep);
            }
            Layout::Pem => self.text("pem"),
            Layout::Pkcs12 { password } => {
                self.text("pkcs12");
                self.secret(password);
            }
        }
        let number = |print: &mut Self, id: u32| print.count(id as usize);
        self.optional(owner.and_then(|owner| owner.user()).map(|user| user.as_raw()), number);
        self.optional(owner.and_then(|owner| owner.group()).map(|group| group.as_raw()), number);
        self.count(key_mode.bits() as usize);
    }

    fn secret(&mut self, source: &SecretSource) {
        match source {
            SecretSource::Text(_) => self.text("text"),
            SecretSource::File(path) => {
                self.text("file");
                self.path(path);
            }
            SecretSource::Variable(name) => {
                self.text("variable");
                self.text(name);
            }
        }
    }

    fn notification(&mut self, notification: &Notification) {
        match notification {
            Notification::Command(command) => {
                self.text("command");
                self.count(command.argv.len());
                for word in &command.argv {
                    self.text(word);
                }
            }
            Notification::Hook(hook) => {
                self.text("hook");
                self.text(hook.url.as_url().as_str());
                self.text(match hook.send {
                    HookContent::Event => "event",
                    HookContent::Certificate => "certificate",
                    HookContent::Key => "key",
                });
                self.optional(hook.token.as_ref(), Self::secret);
                self.optional(hook.ca_file.as_deref(), Self::path);
            }
            Notification::Reload(Reload::Signal { pid_file, signal }) => {
                self.text("signal");
                self.path(pid_file);
                self.text(signal.to_string());
            }
            Notification::Reload(Reload::Systemd { unit }) => {
                self.text("systemd");
                self.text(unit);
            }
            Notification::Reload(Reload::Deployment(place)) => {
                self.text("deployment");
                self.text(place.to_string());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::{
        super::{Command, Hook},
        *,
    };

    fn deployment() -> Deployment {
        Deployment {
            name: "www".into(),
            files: vec![Files { layout: Layout::Live { keep: 5 }, ..Files::flat("./certs".into(), "www") }],
            secrets: vec![TlsSecret::at("apps/www".parse().unwrap())],
            notifications: vec![
                Notification::Command(Command { argv: vec!["a".into(), "b c".into()], limit: Duration::from_secs(1) }),
                Notification::Hook(Box::new(Hook::at("https://hooks.test/x".parse().unwrap()))),
                Notification::Reload(Reload::Systemd { unit: "nginx".into() }),
            ],
        }
    }

    #[test]
    fn whatever_decides_where_it_goes_changes_it() {
        fn hook(deployment: &mut Deployment) -> &mut Hook {
            let Some(Notification::Hook(hook)) = deployment.notifications.get_mut(1) else { panic!("no hook") };
            hook
        }
        let changes: [fn(&mut Deployment); 19] = [
            |_| {},
            |d| d.files.clear(),
            |d| d.files[0].folder = "./other".into(),
            |d| d.files[0].name = "other".into(),
            |d| d.files[0].layout = Layout::Live { keep: 6 },
            |d| d.files[0].layout = Layout::Flat,
            |d| d.files[0].layout = Layout::Pkcs12 { password: SecretSource::File("./a".into()) },
            |d| d.files[0].layout = Layout::Pkcs12 { password: SecretSource::Variable("./a".into()) },
            |d| d.files[0].owner = Some("1000".parse().unwrap()),
            |d| d.files[0].owner = Some(":1000".parse().unwrap()),
            |d| d.files[0].key_mode = "640".parse().unwrap(),
            |d| d.secrets[0].ca = CaCertificate::LastOfChain,
            |d| d.secrets[0].force = true,
            |d| d.notifications.swap(0, 1),
            |d| d.notifications[0] = Notification::Command(Command { argv: vec!["a b".into(), "c".into()], limit: Duration::from_secs(1) }),
            |d| hook(d).url = "https://hooks.test/y".parse().unwrap(),
            |d| hook(d).send = HookContent::Key,
            |d| hook(d).token = Some(SecretSource::File("./token".into())),
            |d| d.notifications[2] = Notification::Reload(Reload::Deployment("apps/nginx".parse().unwrap())),
        ];
        let prints: HashSet<String> = changes
            .iter()
            .map(|change| {
                let mut deployment = deployment();
                change(&mut deployment);
                deployment.fingerprint()
            })
            .collect();
        assert_eq!(prints.len(), changes.len());
    }

    #[test]
    fn secrets_and_time_limits_do_not_change_it() {
        let mut first = deployment();
        let mut second = deployment();
        let password = |text: &str| Layout::Pkcs12 { password: SecretSource::Text(text.to_owned().into()) };
        (first.files[0].layout, second.files[0].layout) = (password("one"), password("two"));
        second.notifications[0] = Notification::Command(Command { argv: vec!["a".into(), "b c".into()], limit: Duration::from_secs(9) });
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_eq!(first.fingerprint().len(), 64);
    }
}
