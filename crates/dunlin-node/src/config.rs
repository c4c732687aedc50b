//! What a node keeps of a folder beside its index: where it is, who belongs to it, which invitations
//! are open. It is no part of the index, which can be rebuilt.

use crate::home::write_atomic;
use dunlin_core::brake::Limits;
use dunlin_core::ids::{DeviceId, FolderId, NodeId};
use dunlin_core::journal::Kept;
use dunlin_core::message::Statement;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The configuration of one folder.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder's id.
    pub id: FolderId,
    /// Where it is on this machine, absolute.
    pub path: PathBuf,
    /// What the marker in the folder must hold.
    pub token: NodeId,
    /// Every membership statement known.
    pub statements: Vec<Statement>,
    /// Open invitations made here.
    pub invites: Vec<Invite>,
    /// Every release known: deletes that members accepted.
    pub releases: Vec<Statement>,
    /// When the brake trips, where that was set.
    pub brake: BrakeSettings,
    /// Whether this device joined somebody else's folder, and has not seen the tree of it yet.
    pub joining: bool,
    /// How much of what is replaced or deleted is kept here.
    pub history: Kept,
}

/// When the brake of a folder trips on this device; what is not set is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrakeSettings {
    /// More than this share of the files, in percent; 100: never for the share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// … if there are at least so many deletes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// More deletes than this, whatever share they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<u64>,
}

impl BrakeSettings {
    /// As the brake takes them.
    pub fn limits(&self) -> Limits {
        let usual = Limits::default();
        Limits {
            percent: self.percent.unwrap_or(usual.percent),
            files: self.files.unwrap_or(usual.files),
            most: self.most.or(usual.most),
        }
    }
}

/// An invitation made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its secret.
    pub secret: NodeId,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Who used it.
    pub used_by: Option<DeviceId>,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    path_hex: String,
    path: String,
    token: String,
    statements: Vec<(String, String)>,
    invites: Vec<(String, u64, Option<String>)>,
    #[serde(default)]
    joining: bool,
    #[serde(default)]
    history: HistoryFile,
    #[serde(default)]
    releases: Vec<(String, String)>,
    #[serde(default)]
    brake: BrakeSettings,
}

#[derive(Serialize, Deserialize)]
#[serde(default)]
struct HistoryFile {
    days: u32,
    percent: u8,
}

impl Default for HistoryFile {
    fn default() -> HistoryFile {
        let Kept { days, percent } = Kept::default();
        HistoryFile { days, percent }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn unhex(text: &str) -> io::Result<Vec<u8>> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| bad("not hexadecimal"))
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the folder's configuration is damaged: {why}"))
}

/// The configuration's file in a folder's state directory.
fn file_in(dir: &Path) -> PathBuf {
    dir.join("folder.json")
}

/// What people set there, and the most it may be.
const SETTINGS: [(&str, &str, u64); 5] = [
    ("brake", "percent", 100),
    ("brake", "files", u64::MAX),
    ("brake", "most", u64::MAX),
    ("history", "days", u32::MAX as u64),
    ("history", "percent", 100),
];

/// What is set to something that it cannot be, as a line.
fn wrong_setting(bytes: &[u8]) -> Option<String> {
    let all: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    SETTINGS.iter().find_map(|(of, field, most)| {
        let value = all.get(of)?.get(field).filter(|v| !(v.is_null() && *of == "brake"))?;
        let fits = value.as_u64().is_some_and(|n| n <= *most);
        let upto = if *most < u64::MAX { format!(" from 0 to {most}") } else { String::new() };
        (!fits).then(|| format!("{of}.{field} is {value}, and has to be a whole number{upto}"))
    })
}

impl Config {
    /// That of a folder that is new here.
    pub fn new(
        id: FolderId,
        path: PathBuf,
        token: NodeId,
        statements: Vec<Statement>,
        joining: bool,
    ) -> Config {
        let (invites, releases, brake, history) = Default::default();
        Config { id, path, token, statements, invites, releases, brake, joining, history }
    }

    /// Reads the configuration from a folder's state directory; `None` if there is none.
    pub fn load(id: FolderId, dir: &Path) -> io::Result<Option<Config>> {
        use std::os::unix::ffi::OsStringExt;
        let bytes = match std::fs::read(file_in(dir)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if let Some(why) = wrong_setting(&bytes) {
            let why = format!("{} has a wrong value: {why}", file_in(dir).display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let unread = |e| bad(&format!("{} is not the expected JSON: {e}", file_in(dir).display()));
        let f: File = serde_json::from_slice(&bytes).map_err(unread)?;
        if f.format != 1 {
            return Err(bad("a newer dunlin wrote it"));
        }
        let id_of = |t: &str| NodeId::from_hex(t).ok_or_else(|| bad("an id"));
        let device = |t: &str| DeviceId::from_hex(t).ok_or_else(|| bad("a device"));
        let read = |all: &[(String, String)]| -> io::Result<Vec<Statement>> {
            let one = |(claim, signature): &(String, String)| {
                Ok(Statement { claim: unhex(claim)?, signature: unhex(signature)? })
            };
            all.iter().map(one).collect()
        };
        let (statements, releases) = (read(&f.statements)?, read(&f.releases)?);
        let mut invites = Vec::new();
        for (secret, expires, used_by) in &f.invites {
            let used_by = used_by.as_deref().map(device).transpose()?;
            invites.push(Invite { secret: id_of(secret)?, expires: *expires, used_by });
        }
        let path = PathBuf::from(std::ffi::OsString::from_vec(unhex(&f.path_hex)?));
        let token = id_of(&f.token)?;
        let HistoryFile { days, percent } = f.history;
        let history = Kept { days, percent };
        let (joining, brake) = (f.joining, f.brake);
        Ok(Some(Config { id, path, token, statements, invites, releases, brake, joining, history }))
    }

    /// Writes the configuration; durable when it returns.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        let written = |all: &[Statement]| all.iter().map(|s| (hex(&s.claim), hex(&s.signature))).collect();
        let file = File {
            format: 1,
            path_hex: hex(self.path.as_os_str().as_bytes()),
            path: self.path.to_string_lossy().into_owned(),
            token: self.token.to_string(),
            statements: written(&self.statements),
            invites: self
                .invites
                .iter()
                .map(|i| (i.secret.to_string(), i.expires, i.used_by.map(|d| d.to_string())))
                .collect(),
            joining: self.joining,
            history: HistoryFile { days: self.history.days, percent: self.history.percent },
            releases: written(&self.releases),
            brake: self.brake.clone(),
        };
        let text = serde_json::to_vec_pretty(&file).map_err(io::Error::other)?;
        write_atomic(&file_in(dir), &text)
    }

    /// The text of the marker in the folder.
    pub fn marker(&self) -> String {
        format!("{}\n{}\n", self.id, self.token)
    }
}

/// What a person set for the whole node, in `node.json` of the state directory; it is never written here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether large contents may go over TCP; else QUIC does it all.
    pub tcp: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { tcp: true }
    }
}

/// Reads the settings of the node; without any, all is as usual.
///
/// # Errors
/// When there are some that cannot be read: what a person wanted is not to be ignored.
pub fn load_settings(home: &Path) -> io::Result<Settings> {
    let path = home.join("node.json");
    let of = |e: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display()))
    };
    match std::fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Settings::default()),
        Err(e) => Err(of(&e)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| of(&e)),
    }
}

/// Last known addresses of devices, by device; a hint only.
pub fn load_addresses(home: &Path) -> BTreeMap<DeviceId, Vec<SocketAddr>> {
    let Ok(bytes) = std::fs::read(home.join("addresses.json")) else { return BTreeMap::new() };
    let all: BTreeMap<String, Vec<SocketAddr>> = serde_json::from_slice(&bytes).unwrap_or_default();
    all.into_iter().filter_map(|(d, a)| Some((DeviceId::from_hex(&d)?, a))).collect()
}

/// Remembers addresses.
pub fn save_addresses(home: &Path, all: &BTreeMap<DeviceId, Vec<SocketAddr>>) -> io::Result<()> {
    let all: BTreeMap<String, &Vec<SocketAddr>> = all.iter().map(|(d, a)| (d.to_string(), a)).collect();
    write_atomic(&home.join("addresses.json"), &serde_json::to_vec(&all).map_err(io::Error::other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_as_usual_unless_set_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_settings(dir.path()).unwrap().tcp);
        for (text, tcp) in
            [("{}", Some(true)), (r#"{"tcp": false}"#, Some(false)), (r#"{"tpc": false}"#, None)]
        {
            std::fs::write(dir.path().join("node.json"), text).unwrap();
            assert_eq!(load_settings(dir.path()).ok().map(|s| s.tcp), tcp, "{text}");
        }
    }

    #[test]
    fn configurations_round_trip() {
        use std::os::unix::ffi::OsStringExt;
        let dir = tempfile::tempdir().unwrap();
        let id = FolderId([1; 32]);
        assert!(Config::load(id, dir.path()).unwrap().is_none());
        let config = Config {
            id,
            path: PathBuf::from(std::ffi::OsString::from_vec(b"/tmp/\xff".to_vec())),
            token: NodeId([2; 16]),
            statements: vec![Statement { claim: vec![1], signature: vec![2] }],
            invites: vec![Invite { secret: NodeId([3; 16]), expires: 9, used_by: Some(DeviceId([4; 32])) }],
            releases: vec![Statement { claim: vec![5], signature: vec![6] }],
            brake: BrakeSettings { percent: Some(100), files: None, most: Some(7) },
            joining: true,
            history: Kept { days: 7, percent: 3 },
        };
        config.save(dir.path()).unwrap();
        let read = Config::load(id, dir.path()).unwrap().unwrap();
        assert_eq!((read.path, read.token), (config.path, config.token));
        assert_eq!((read.statements, read.invites), (config.statements, config.invites));
        assert!(read.joining);
        assert_eq!(read.history, config.history);
        assert_eq!((read.releases, read.brake.limits().files), (config.releases, 100));
        assert_eq!((read.brake.limits().percent, read.brake.limits().most), (100, Some(7)));
        // As it was written before there was a brake.
        let text = std::fs::read_to_string(dir.path().join("folder.json")).unwrap();
        let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
        old.as_object_mut().unwrap().retain(|key, _| key != "releases" && key != "brake");
        std::fs::write(dir.path().join("folder.json"), old.to_string()).unwrap();
        let read = Config::load(id, dir.path()).unwrap().unwrap();
        assert_eq!((read.releases.len(), read.brake.limits()), (0, Limits::default()));
        for (of, field, value, why) in [
            (
                "brake",
                "percent",
                serde_json::json!(101),
                "brake.percent is 101, and has to be a whole number from 0 to 100",
            ),
            (
                "brake",
                "most",
                serde_json::json!("many"),
                "brake.most is \"many\", and has to be a whole number",
            ),
            ("brake", "files", serde_json::json!(-1), "brake.files is -1, and has to be a whole number"),
            (
                "history",
                "percent",
                serde_json::json!(200),
                "history.percent is 200, and has to be a whole number from 0 to 100",
            ),
        ] {
            let mut wrong: serde_json::Value = serde_json::from_str(&text).unwrap();
            wrong[of][field] = value;
            std::fs::write(dir.path().join("folder.json"), wrong.to_string()).unwrap();
            let said = Config::load(id, dir.path()).unwrap_err().to_string();
            assert!(said.ends_with(why) && said.contains("folder.json has a wrong value"), "{said}");
        }
        std::fs::write(dir.path().join("folder.json"), b"{").unwrap();
        assert!(Config::load(id, dir.path()).is_err());
    }
}
