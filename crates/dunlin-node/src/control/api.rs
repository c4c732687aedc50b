//! The types of the control API, and the trait that a node implements.

use super::{
    AnyPath, Bytes, ContentRequest, Event, HandedOut, History, HistoryRequest, Holding, RestoreRequest,
    Restored, Resumed, UndoRequest, Undone,
};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::PathBuf;
use tokio::sync::broadcast;

/// What a running node can be asked. Dropping a returned future cancels what it waits for, never
/// what was already recorded.
pub trait Api: Send + Sync + 'static {
    /// Shares the directory at `path` (absolute), creating it where it is missing. Returns when the
    /// folder is usable. A folder shared already is no error: it gets a fresh ticket.
    fn share(&self, path: PathBuf) -> impl Future<Output = Result<Shared, ApiError>> + Send;

    /// Joins the folder of a ticket. The target is checked before the ticket is used; returns when
    /// durably admitted, or fails with nothing created.
    fn join(&self, request: JoinRequest) -> impl Future<Output = Result<Joined, ApiError>> + Send;

    /// Makes a fresh ticket for a folder.
    fn invite(&self, folder: FolderSpec) -> impl Future<Output = Result<String, ApiError>> + Send;

    /// The present state, as true as it can be told.
    fn status(&self) -> impl Future<Output = Result<Status, ApiError>> + Send;

    /// Returns when this device and all connected ones are in sync and at least `copies` copies
    /// exist, this one counted; fails at once for a halted folder. Looks at the disk first, so an
    /// edit finished before the call is covered.
    fn wait(&self, folder: FolderSpec, copies: u32) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// Reads every file of a folder again, has those put right that are damaged, and returns when that is
    /// done or nobody connected can help.
    fn verify(&self, folder: FolderSpec) -> impl Future<Output = Result<Verified, ApiError>> + Send;

    /// What was at a path and below it, and is not there any more as it was.
    fn history(&self, request: HistoryRequest) -> impl Future<Output = Result<History, ApiError>> + Send;

    /// Has something be again as it was, and returns when it is on the disk or cannot be. Nothing is changed
    /// where nobody connected has what it needs, or there is no room.
    fn restore(&self, request: RestoreRequest) -> impl Future<Output = Result<Restored, ApiError>> + Send;

    /// What a restore would bring of it, and who has that, for a place outside the folder.
    fn versions(&self, request: RestoreRequest) -> impl Future<Output = Result<HandedOut, ApiError>> + Send;

    /// The bytes of one version as a device has them; whoever asked verifies them.
    fn content(&self, request: ContentRequest) -> impl Future<Output = Result<Bytes, ApiError>> + Send;

    /// Takes changes back on every device, as a new change.
    fn undo(&self, request: UndoRequest) -> impl Future<Output = Result<Undone, ApiError>> + Send;

    /// Decides about the deletes that the brake of a folder holds: with `accept` they happen, else they are
    /// taken back. Fails, and changes nothing, where none are held.
    fn resume(
        &self,
        folder: FolderSpec,
        accept: bool,
    ) -> impl Future<Output = Result<Resumed, ApiError>> + Send;

    /// Takes the directory that is at a halted folder's path for the folder from now on. It is united with what the
    /// others have: nothing is deleted. Fails, and changes nothing, where the folder is not halted for its root.
    fn unite(&self, folder: FolderSpec) -> impl Future<Output = Result<United, ApiError>> + Send;

    /// Everything that happens from now on.
    fn events(&self) -> broadcast::Receiver<Event>;
}

/// Whose fault an error is, and so the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request was wrong: exit code 2.
    Usage,
    /// It could not be done: exit code 1.
    Failed,
}

/// Why a request was not done, for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Whose fault.
    pub code: ErrorCode,
    /// What happened: one line, lower case, no full stop.
    pub message: String,
    /// What to do about it, likewise.
    pub hint: String,
}

impl ApiError {
    /// The request was wrong.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError { code: ErrorCode::Usage, message: message.into(), hint: hint.into() }
    }

    /// It could not be done.
    pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> ApiError {
        ApiError { code: ErrorCode::Failed, message: message.into(), hint: hint.into() }
    }
}

/// The body of an answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

/// Which folder a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum FolderSpec {
    /// The only one of the node.
    #[default]
    Only,
    /// The one with this id.
    Id {
        /// The id, as in status.
        id: String,
    },
    /// The one at this path.
    Path {
        /// Absolute.
        #[serde(flatten)]
        path: AnyPath,
    },
}

impl FolderSpec {
    /// Finds the folder meant among all of a node, given as (id, path); returns its place in them.
    /// Paths are compared as they are: both sides resolve links first.
    pub fn pick<'a>(
        &self,
        folders: impl IntoIterator<Item = (&'a str, &'a std::path::Path)>,
    ) -> Result<usize, ApiError> {
        const SEE: &str = "dunlin status lists the folders of this node";
        let mut folders = folders.into_iter();
        match self {
            FolderSpec::Only => match (folders.next(), folders.next()) {
                (Some(_), None) => Ok(0),
                (Some((_, one)), Some(_)) => {
                    let one = super::Escaped(one.as_os_str().as_encoded_bytes());
                    Err(ApiError::usage(
                        "this node has several folders, and none was named",
                        format!("name the one that is meant by its path, such as {one}; {SEE}"),
                    ))
                }
                (None, _) => Err(ApiError::failed(
                    "this node has no folder yet",
                    "dunlin share FOLDER shares one, dunlin join TICKET joins one",
                )),
            },
            FolderSpec::Id { id } => folders.position(|(other, _)| other == id).ok_or_else(|| {
                ApiError::failed(format!("no folder has the id {}", super::Escaped(id.as_bytes())), SEE)
            }),
            FolderSpec::Path { path } => {
                folders.position(|(_, other)| other == path.as_path()).ok_or_else(|| {
                    ApiError::failed(
                        format!("{} is not a shared folder", super::Escaped(path.as_bytes())),
                        SEE,
                    )
                })
            }
        }
    }
}

/// `POST /v1/share`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRequest {
    /// The directory, absolute.
    #[serde(flatten)]
    pub path: AnyPath,
}

/// A folder that is shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// This device's id.
    pub device: String,
    /// This device's name.
    pub name: String,
    /// The folder's id.
    pub folder: String,
    /// Where it is, absolute.
    #[serde(flatten)]
    pub path: AnyPath,
    /// A fresh invitation.
    pub ticket: String,
}

/// `POST /v1/join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The invitation.
    pub ticket: String,
    /// The directory, absolute. It may be missing; its parent may not.
    #[serde(flatten)]
    pub path: AnyPath,
    /// The folder was not named: `path` is the directory in which one called as the inviter's is
    /// made, or used if it is there.
    #[serde(default)]
    pub below: bool,
}

/// A folder that is joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// This device's id.
    pub device: String,
    /// This device's name.
    pub name: String,
    /// The folder's id.
    pub folder: String,
    /// Where it is, absolute.
    #[serde(flatten)]
    pub path: AnyPath,
}

/// `POST /v1/invite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteRequest {
    /// Which folder.
    pub folder: FolderSpec,
}

/// A fresh invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// The ticket.
    pub ticket: String,
}

/// `POST /v1/wait`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
    /// How many copies there must be, this one counted.
    #[serde(default = "one")]
    pub copies: u32,
}

fn one() -> u32 {
    1
}

/// `POST /v1/verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
}

/// What reading all files of a folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Files that were being changed, which were left to the ordinary look.
    pub changed: u64,
    /// Files whose bytes were not what they should be although nobody wrote to them.
    pub damaged: u64,
    /// Those of them that hold what they should again.
    pub repaired: u64,
    /// What is not as it should be: files that are damaged still, or cannot be read.
    pub problems: Vec<Problem>,
}

/// `POST /v1/unite`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UniteRequest {
    /// Which folder.
    #[serde(default)]
    pub folder: FolderSpec,
}

/// A folder that goes on with the directory which is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct United {
    /// The folder's id.
    pub folder: String,
    /// Where it is, absolute.
    #[serde(flatten)]
    pub path: AnyPath,
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This device's id.
    pub device: String,
    /// Its name.
    pub name: String,
    /// Its folders, by path.
    pub folders: Vec<Folder>,
}

/// What a folder is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Looking at the disk.
    Scanning,
    /// Taking over changes of other devices.
    Syncing,
    /// Nothing to do.
    Idle,
    /// Stopped by a safety rule, waiting for a person.
    Halted,
    /// It cannot go on; the problems say why.
    Error,
}

/// The state of one folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Its id.
    pub id: String,
    /// Where it is, absolute.
    #[serde(flatten)]
    pub path: AnyPath,
    /// What it is doing.
    pub state: State,
    /// This device and all connected ones hold the same, and nothing is in the way. Alone it means
    /// that nothing known is lacking here. Never said while not everything can be watched (which is a
    /// problem then): something may have changed since the last look.
    pub in_sync: bool,
    /// Files here.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Entries known of that are lacking here.
    pub need_files: u64,
    /// Bytes lacking here.
    pub need_bytes: u64,
    /// Those of the entries that are to be deleted here: files and links.
    #[serde(default)]
    pub to_delete: u64,
    /// Conflict copies showing.
    pub conflicts: u64,
    /// What it holds until a person decides, if it is halted for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Holding>,
    /// It is halted since its directory is not there, or not the right one: it goes on by itself when that is back.
    #[serde(default)]
    pub root_lost: bool,
    /// What could not be done, by path.
    pub problems: Vec<Problem>,
    /// The other devices of the folder.
    pub devices: Vec<Device>,
}

/// What could not be done with a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path relative to the folder; empty for the folder itself.
    #[serde(flatten)]
    pub path: AnyPath,
    /// Why, as one line.
    pub why: String,
}

/// Another device of a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is connected now.
    pub connected: bool,
    /// Whether it is known to hold exactly what this device holds.
    pub in_sync: bool,
    /// The address it is connected by, or was last; none where no one is known.
    pub address: Option<String>,
    /// How large contents come from it, besides QUIC; none where it is not connected, or one of both offers no TCP.
    #[serde(default)]
    pub tcp: Option<Tcp>,
    /// It holds deletes or edits until a person decides about them.
    #[serde(default)]
    pub holds: bool,
}

/// How the TCP lane to a connected device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tcp {
    /// Large contents come over TCP now, or did a moment ago.
    Open,
    /// Nothing large had to come of late.
    Closed,
    /// No TCP connection could be had, or it broke: all comes over QUIC, and it is tried again now and then.
    Fails,
}

#[cfg(test)]
mod tests {
    use super::super::ResumeRequest;
    use super::*;
    use std::path::Path;

    #[test]
    fn status_has_the_keys_other_programs_rely_on() {
        let status = Status {
            device: "d".into(),
            name: "laptop".into(),
            folders: vec![Folder {
                id: "f".into(),
                path: PathBuf::from("/s").into(),
                state: State::Syncing,
                in_sync: false,
                files: 1,
                bytes: 2,
                need_files: 3,
                need_bytes: 4,
                to_delete: 1,
                conflicts: 5,
                held: None,
                root_lost: false,
                problems: vec![Problem { path: PathBuf::from("p").into(), why: "w".into() }],
                devices: vec![Device {
                    id: "e".into(),
                    name: "nas".into(),
                    connected: false,
                    in_sync: false,
                    address: None,
                    tcp: None,
                    holds: false,
                }],
            }],
        };
        let json = concat!(
            r#"{"device":"d","name":"laptop","folders":[{"id":"f","path":"/s","state":"syncing","#,
            r#""in_sync":false,"files":1,"bytes":2,"need_files":3,"need_bytes":4,"to_delete":1,"conflicts":5,"#,
            r#""root_lost":false,"problems":[{"path":"p","why":"w"}],"devices":[{"id":"e","name":"nas","#,
            r#""connected":false,"in_sync":false,"address":null,"tcp":null,"holds":false}]}]}"#
        );
        assert_eq!(serde_json::to_string(&status).unwrap(), json);
        assert_eq!(serde_json::from_str::<Status>(json).unwrap(), status);
    }

    #[test]
    fn requests_come_back() {
        for folder in [
            FolderSpec::Only,
            FolderSpec::Id { id: "f".into() },
            FolderSpec::Path { path: AnyPath::from(b"/\xff".to_vec()) },
        ] {
            let request = WaitRequest { folder, copies: 3 };
            let json = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<WaitRequest>(&json).unwrap(), request);
        }
        let resume: ResumeRequest = serde_json::from_str(r#"{"accept":false}"#).unwrap();
        assert_eq!(resume, ResumeRequest { folder: FolderSpec::Only, accept: false });
        assert!(serde_json::from_str::<ResumeRequest>("{}").is_err());
        let bare: WaitRequest = serde_json::from_str("{}").unwrap();
        assert_eq!(bare, WaitRequest { folder: FolderSpec::Only, copies: 1 });
    }

    #[test]
    fn a_folder_is_picked_or_the_choice_is_refused() {
        let two = [("a", Path::new("/a")), ("b", Path::new("/b"))];
        let pick = |spec: FolderSpec, n: usize| spec.pick(two[..n].iter().copied()).map_err(|e| e.code);
        assert_eq!(pick(FolderSpec::Only, 0), Err(ErrorCode::Failed));
        assert_eq!(pick(FolderSpec::Only, 1), Ok(0));
        assert_eq!(pick(FolderSpec::Only, 2), Err(ErrorCode::Usage));
        assert_eq!(pick(FolderSpec::Id { id: "b".into() }, 2), Ok(1));
        assert_eq!(pick(FolderSpec::Id { id: "c".into() }, 2), Err(ErrorCode::Failed));
        assert_eq!(pick(FolderSpec::Path { path: PathBuf::from("/a").into() }, 2), Ok(0));
        assert_eq!(pick(FolderSpec::Path { path: PathBuf::from("/a/x").into() }, 2), Err(ErrorCode::Failed));
    }
}
