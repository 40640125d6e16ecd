//! Whose the files are: a user and a group by name or number.
//!
//! Names are looked up in `/etc/passwd` and `/etc/group`, without NSS: a statically linked acmegate has none, the users of services stand in these files, and whoever comes
//! from a directory service has a number.

use std::{fs, str::FromStr};

use rustix::fs::{Gid, Uid};

/// `USER`, `USER:GROUP` or `:GROUP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    user: Option<Uid>,
    group: Option<Gid>,
}

/// Why a text is no owner of files here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOwner {
    /// Not of the form.
    #[error("not of the form USER, USER:GROUP or :GROUP")]
    Form,
    /// No such name.
    #[error("{0} has no {1} {2:?}: give its number")]
    Unknown(&'static str, &'static str, String),
}

impl Owner {
    /// The user, if one is named.
    pub const fn user(self) -> Option<Uid> {
        self.user
    }

    /// The group, if one is named.
    pub const fn group(self) -> Option<Gid> {
        self.group
    }

    fn parse(text: &str, users: &str, groups: &str) -> Result<Self, BadOwner> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) if !group.is_empty() => (user, Some(group)),
            Some(_) => return Err(BadOwner::Form),
            None => (text, None),
        };
        if text.is_empty() || group.is_some_and(|group| group.contains(':')) {
            return Err(BadOwner::Form);
        }
        let user = Some(user).filter(|user| !user.is_empty());
        let user = user.map(|name| number(name, users).ok_or(BadOwner::Unknown("/etc/passwd", "user", name.into()))).transpose()?;
        let group = group.map(|name| number(name, groups).ok_or(BadOwner::Unknown("/etc/group", "group", name.into()))).transpose()?;
        Ok(Self { user: user.map(Uid::from_raw), group: group.map(Gid::from_raw) })
    }
}

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        Self::parse(text, &read("/etc/passwd"), &read("/etc/group"))
    }
}

/// The third field of the line that begins with `name` (both files have it there); a name that is a number means itself.
fn number(name: &str, table: &str) -> Option<u32> {
    let of_table = || {
        let mut fields =
            table.lines().map(|line| line.split(':')).find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
        fields.nth(1)?.parse().ok()
    };
    // The largest number means "leave it as it is" to the system.
    name.parse().ok().or_else(of_table).filter(|&number| number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_owners() {
        let parse = |text| Owner::parse(text, "root:x:0:0::/:\nhaproxy:x:101:102::/:\n", "root:x:0:\nssl-cert:x:110:haproxy\n");
        let owner = |user: Option<u32>, group: Option<u32>| Ok(Owner { user: user.map(Uid::from_raw), group: group.map(Gid::from_raw) });
        assert_eq!(parse("haproxy"), owner(Some(101), None));
        assert_eq!(parse("haproxy:ssl-cert"), owner(Some(101), Some(110)));
        assert_eq!(parse(":ssl-cert"), owner(None, Some(110)));
        assert_eq!(parse("1000:1001"), owner(Some(1000), Some(1001)));
        for wrong in ["", ":", "haproxy:", "a:b:c", "haproxy:root:"] {
            assert_eq!(parse(wrong), Err(BadOwner::Form), "{wrong}");
        }
        for unknown in ["nobody", "haproxy:haproxy", "4294967295", "-1", "root:4294967296"] {
            assert!(matches!(parse(unknown), Err(BadOwner::Unknown(..))), "{unknown}");
        }
        assert_eq!(parse("nobody").unwrap_err().to_string(), "/etc/passwd has no user \"nobody\": give its number");
    }
}
