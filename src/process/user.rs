//! The user that the process runs as.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User};
use nix::unistd::{
    getresgid, getresuid, initgroups, setgid, setgroups, setresgid, setresuid, setuid,
};
use thiserror::Error;

use super::settings::ProcessSection;

/// The user and group to switch to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// As in the system's user database, or as configured.
    name: String,
    uid: Uid,
    gid: Gid,
    /// Whether the user is in the system's user database, which has its supplementary groups.
    known: bool,
}

/// Why there is no user to switch to.
#[derive(Debug, Error)]
pub enum UserError {
    /// No such user.
    #[error("there is no user `{0}` on this machine")]
    NoSuchUser(String),
    /// No such group.
    #[error("there is no group `{0}` on this machine")]
    NoSuchGroup(String),
    /// Switching to root drops no privileges.
    #[error("`{0}` is root, as which syncgate must not run")]
    Root(String),
    /// A numeric id without an entry in the user database, and so without a group.
    #[error("the system does not know the user {0}, so its group is unknown too")]
    NoGroup(String),
    /// A group without a user.
    #[error("a group has no effect without a user")]
    GroupAlone,
    /// Started as root, without a user to switch to.
    #[error("started as root, and no user is configured to switch to")]
    StaysRoot,
    /// The user database cannot be read.
    #[error("the system's user database cannot be read: {0}")]
    Unreadable(Errno),
}

impl UserError {
    /// The setting that is wrong.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::NoSuchUser(_) | Self::Root(_) | Self::StaysRoot | Self::Unreadable(_) => "user",
            Self::NoSuchGroup(_) | Self::NoGroup(_) | Self::GroupAlone => "group",
        }
    }

    /// How to fix it.
    pub(crate) fn remedy(&self) -> String {
        match self {
            Self::NoSuchUser(name) => format!(
                "create it: useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
            ),
            Self::NoSuchGroup(name) => {
                format!("create it: groupadd --system {name}; or leave it out for the user's own")
            }
            Self::Root(_) => {
                "name a user that owns nothing but what syncgate needs, such as \"syncgate\""
                    .to_owned()
            }
            Self::NoGroup(number) => {
                format!("write group = \"{number}\", or the group's actual id")
            }
            Self::GroupAlone => "write user = \"syncgate\" too, or leave the group out".to_owned(),
            Self::StaysRoot => {
                "write user = \"syncgate\" under [process], a user that owns the files of \
                                syncgate and nothing else, or start it as that user; where root is \
                                confined otherwise, as in a container, write allow_root = true"
                    .to_owned()
            }
            Self::Unreadable(_) => "write the numeric ids of user and group".to_owned(),
        }
    }
}

impl RunAs {
    /// Looks up the configured user; `None` if none is configured.
    ///
    /// # Errors
    /// If the user or group does not exist, or the user is root.
    pub(crate) fn find(section: &ProcessSection) -> Result<Option<Self>, UserError> {
        let Some(written) = &section.user else {
            return match &section.group {
                Some(_) => Err(UserError::GroupAlone),
                None => Ok(None),
            };
        };
        let group = section.group.as_deref().map(find_group).transpose()?;
        let found = Self::find_user(written, group)?;
        match found.uid.is_root() {
            true => Err(UserError::Root(written.clone())),
            false => Ok(Some(found)),
        }
    }

    /// The user to switch to, if the process runs as root.
    ///
    /// # Errors
    /// If it does not exist, or the process would stay root without permission.
    pub(super) fn target_user(section: &ProcessSection) -> Result<Option<Self>, UserError> {
        let user = Self::find(section)?;
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        match user {
            None if !section.allow_root => Err(UserError::StaysRoot),
            user => Ok(user),
        }
    }

    fn find_user(written: &str, group: Option<Gid>) -> Result<Self, UserError> {
        let number = written.parse().ok().map(Uid::from_raw);
        let known = match number {
            Some(uid) => User::from_uid(uid),
            None => User::from_name(written),
        };
        match (known.map_err(UserError::Unreadable), number, group) {
            (Ok(Some(user)), _, _) => Ok(Self {
                name: user.name,
                uid: user.uid,
                gid: group.unwrap_or(user.gid),
                known: true,
            }),
            (Ok(None) | Err(_), Some(uid), Some(gid)) => Ok(Self {
                name: written.to_owned(),
                uid,
                gid,
                known: false,
            }),
            (Ok(None) | Err(_), Some(_), None) => Err(UserError::NoGroup(written.to_owned())),
            (Ok(None), None, _) => Err(UserError::NoSuchUser(written.to_owned())),
            (Err(error), None, _) => Err(error),
        }
    }

    /// The name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The ids of user and group.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Whether the process runs as this user already.
    pub(super) fn is_current(&self) -> bool {
        Uid::effective() == self.uid
    }

    /// Switches to the user and its groups, permanently. This affects all threads, but is best done before
    /// there is a second one.
    ///
    /// # Errors
    /// If the system refuses, or would let the process switch back.
    pub(super) fn switch(&self) -> Result<(), Errno> {
        match CString::new(self.name.as_str()) {
            Ok(name) if self.known => initgroups(&name, self.gid)?,
            Ok(_) | Err(_) => setgroups(&[self.gid])?,
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        let (users, groups) = (getresuid()?, getresgid()?);
        let is_it = [users.real, users.effective, users.saved] == [self.uid; 3]
            && [groups.real, groups.effective, groups.saved] == [self.gid; 3];
        // The only proof that it cannot switch back is to try.
        let stays =
            setuid(ROOT).is_err() && (self.gid == ROOT_GROUP || setgid(ROOT_GROUP).is_err());
        match is_it && stays {
            true => Ok(()),
            false => Err(Errno::EPERM),
        }
    }
}

fn find_group(written: &str) -> Result<Gid, UserError> {
    if let Ok(number) = written.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(written).map_err(UserError::Unreadable)? {
        Some(group) => Ok(group.gid),
        None => Err(UserError::NoSuchGroup(written.to_owned())),
    }
}

const ROOT: Uid = Uid::from_raw(0);
const ROOT_GROUP: Gid = Gid::from_raw(0);

#[cfg(test)]
mod tests {
    use super::*;

    fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<RunAs>, UserError> {
        RunAs::find(&ProcessSection {
            user: user.map(str::to_owned),
            group: group.map(str::to_owned),
            ..ProcessSection::default()
        })
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        assert!(find(None, None).unwrap().is_none());
        let nobody = find(Some("nobody"), None).unwrap().unwrap();
        let (uid, gid) = nobody.ids();
        let again = find(Some(&uid.to_string()), None).unwrap().unwrap();
        assert_eq!(again, nobody);
        let other = find(Some("nobody"), Some("4321")).unwrap().unwrap();
        assert_eq!(other.ids(), (uid, 4321));
        assert_ne!(gid, 4321);
        // As in a container without a user database.
        let unknown = find(Some("54321"), Some("54321")).unwrap().unwrap();
        assert_eq!(unknown.ids(), (54321, 54321));
    }

    #[test]
    fn errors_come_with_a_remedy() {
        let cases = [
            (Some("no-such-user"), None, "user", "useradd"),
            (Some("nobody"), Some("no-such-group"), "group", "groupadd"),
            (Some("root"), None, "user", "syncgate"),
            (Some("0"), None, "user", "syncgate"),
            (Some("54321"), None, "group", "54321"),
            (None, Some("nogroup"), "group", "user ="),
        ];
        for (user, group, key, remedy) in cases {
            let error = find(user, group).unwrap_err();
            assert_eq!(error.key(), key, "{error}");
            assert!(
                error.remedy().contains(remedy),
                "{error}: {}",
                error.remedy()
            );
        }
    }
}
