//! What a node tells of itself while it runs.

use super::{AnyPath, State};
use serde::{Deserialize, Serialize};

/// One event; in JSON an object whose key `event` names it. Keys may be added, never renamed; a
/// reader ignores keys and events it does not know (they read as [`Event::Unknown`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A folder became usable: shared, joined, or opened at start.
    Ready {
        /// This device's id.
        device: String,
        /// The folder's id.
        folder: String,
        /// Where it is on this device, absolute.
        #[serde(flatten)]
        path: AnyPath,
        /// A fresh invitation. Only in the answer to whoever shared it, never broadcast: it is a secret.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ticket: Option<String>,
    },
    /// Another device is there.
    Connected {
        /// Its id.
        device: String,
        /// Its name.
        name: String,
    },
    /// Another device has gone.
    Disconnected {
        /// Its id.
        device: String,
        /// Its name.
        name: String,
    },
    /// A folder's state changed.
    State {
        /// The folder's id.
        folder: String,
        /// The new state.
        state: State,
        /// As in status.
        in_sync: bool,
    },
    /// How much a folder still lacks; sent a few times a second at most while it lacks something.
    Progress {
        /// The folder's id.
        folder: String,
        /// Entries this device still lacks.
        need_files: u64,
        /// Bytes this device still lacks.
        need_bytes: u64,
        /// Those of the entries that lack nothing but to be deleted.
        #[serde(default)]
        to_delete: u64,
    },
    /// How far reading all files again has come; sent a few times a second at most.
    Verifying {
        /// The folder's id.
        folder: String,
        /// Files read.
        files: u64,
        /// Bytes read.
        bytes: u64,
        /// Files found damaged.
        damaged: u64,
    },
    /// A change of another device was made here.
    Applied {
        /// The folder's id.
        folder: String,
        /// What changed, relative to the folder.
        #[serde(flatten)]
        path: AnyPath,
        /// How.
        kind: Change,
    },
    /// A conflict copy appeared: both versions are kept.
    Conflict {
        /// The folder's id.
        folder: String,
        /// The copy, relative to the folder.
        #[serde(flatten)]
        path: AnyPath,
    },
    /// Something could not be done with one path; it stays in status until it can.
    Problem {
        /// The folder's id.
        folder: String,
        /// The path, relative to the folder; empty for the folder itself.
        #[serde(flatten)]
        path: AnyPath,
        /// Why, as one line.
        why: String,
    },
    /// Something a person may want to know, as one line.
    Note {
        /// The line.
        text: String,
    },
    /// The reader was too slow and this many events are lost to it; status has the present.
    Missed {
        /// How many.
        count: u64,
    },
    /// An event of a later version.
    #[serde(other)]
    Unknown,
}

/// How a path was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is new here.
    Created,
    /// Its content was replaced.
    Changed,
    /// Only its mode or time changed.
    Metadata,
    /// It moved to this path.
    Moved,
    /// It went away.
    Deleted,
    /// A kind of a later version.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_words_other_programs_rely_on() {
        let path = || AnyPath::from(b"/s".to_vec());
        let (device, folder, name) = ("d".to_owned(), "f".to_owned(), "n".to_owned());
        let all = [
            (
                Event::Ready { device: device.clone(), folder: folder.clone(), path: path(), ticket: None },
                r#"{"event":"ready","device":"d","folder":"f","path":"/s"}"#,
            ),
            (
                Event::Ready {
                    device: device.clone(),
                    folder: folder.clone(),
                    path: path(),
                    ticket: Some("t".into()),
                },
                r#"{"event":"ready","device":"d","folder":"f","path":"/s","ticket":"t"}"#,
            ),
            (
                Event::Connected { device: device.clone(), name: name.clone() },
                r#"{"event":"connected","device":"d","name":"n"}"#,
            ),
            (
                Event::State { folder: folder.clone(), state: State::Idle, in_sync: true },
                r#"{"event":"state","folder":"f","state":"idle","in_sync":true}"#,
            ),
            (
                Event::Applied { folder: folder.clone(), path: path(), kind: Change::Moved },
                r#"{"event":"applied","folder":"f","path":"/s","kind":"moved"}"#,
            ),
            (
                Event::Verifying { folder: folder.clone(), files: 1, bytes: 2, damaged: 0 },
                r#"{"event":"verifying","folder":"f","files":1,"bytes":2,"damaged":0}"#,
            ),
            (
                Event::Problem { folder, path: AnyPath::from(b"\xff".to_vec()), why: "w".into() },
                r#"{"event":"problem","folder":"f","path":"�","path_hex":"ff","why":"w"}"#,
            ),
        ];
        for (event, json) in all {
            assert_eq!(serde_json::to_string(&event).unwrap(), json);
            assert_eq!(serde_json::from_str::<Event>(json).unwrap(), event);
        }
    }

    #[test]
    fn later_events_and_keys_are_no_error() {
        let later = r#"{"event":"rain","much":true}"#;
        assert_eq!(serde_json::from_str::<Event>(later).unwrap(), Event::Unknown);
        let more = r#"{"event":"missed","count":3,"since":1}"#;
        assert_eq!(serde_json::from_str::<Event>(more).unwrap(), Event::Missed { count: 3 });
    }
}
