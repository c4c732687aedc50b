//! What a node in the foreground prints while it runs: one line an event, and on a terminal what is
//! still to come, in place.

use super::status::to_do;
use super::words::{Style, count};
use super::{print, print_json};
use dunlin_node::control::{AnyPath, Change, Escaped, Event, Joined, Shared, State, Status};
use std::collections::{HashMap, HashSet};
use std::io::{IsTerminal, Write};

/// The first thing that is printed.
#[derive(Clone, Debug)]
pub enum Opening {
    /// A folder was shared.
    Shared(Shared),
    /// A folder was joined.
    Joined(Joined),
    /// The node runs with what it knows.
    Running(Status),
}

/// The printer of events.
#[derive(Debug)]
pub struct Live {
    json: bool,
    verbose: bool,
    in_place: bool,
    in_place_shown: bool,
    style: Style,
    folders: HashMap<String, Known>,
    /// Folders whose `ready` was printed.
    ready: HashSet<String>,
}

/// What was told of a folder.
#[derive(Clone, Debug, Default)]
struct Known {
    path: Option<AnyPath>,
    state: Option<State>,
    in_sync: bool,
    applied: u64,
}

impl Live {
    /// A printer to standard output.
    pub fn new(json: bool, verbose: bool) -> Live {
        let terminal = std::io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        Live {
            json,
            verbose,
            in_place: terminal && !dumb && !json,
            in_place_shown: false,
            style: Style::of(terminal),
            folders: HashMap::new(),
            ready: HashSet::new(),
        }
    }

    /// Takes up what the folders are called.
    pub fn know(&mut self, status: &Status) {
        for folder in &status.folders {
            self.folders.entry(folder.id.clone()).or_default().path = Some(folder.path.clone());
        }
    }

    /// Prints the first thing. `stays`: the node runs in this process.
    pub fn open(&mut self, opening: &Opening, stays: bool) {
        let events = ready_events(opening);
        for event in &events {
            if let Event::Ready { folder, path, .. } = event {
                self.ready.insert(folder.clone());
                self.folders.entry(folder.clone()).or_default().path = Some(path.clone());
            }
            if self.json {
                print_json(event);
            }
        }
        if !self.json {
            print(&self.opening_text(opening));
            if stays {
                print(&self.style.dim("Ctrl-C ends it."));
            }
        }
    }

    fn opening_text(&self, opening: &Opening) -> String {
        match opening {
            Opening::Shared(shared) => {
                let (path, paste) = (self.style.path(&shared.path), self.style.shell_path(&shared.path));
                format!(
                    "Sharing {path} as \"{}\". On another device:   {}",
                    shown(&shared.name),
                    self.style.bold(&format!("dunlin join {} {paste}", shown(&shared.ticket)))
                )
            }
            Opening::Joined(joined) => {
                format!("Joined {} as \"{}\".", self.style.path(&joined.path), shown(&joined.name))
            }
            Opening::Running(status) if status.folders.is_empty() => format!(
                "Running as \"{}\", with no folder yet: dunlin share FOLDER shares one, dunlin join TICKET joins one.",
                shown(&status.name)
            ),
            Opening::Running(status) => {
                let paths: Vec<String> = status.folders.iter().map(|f| self.style.path(&f.path)).collect();
                format!("Running as \"{}\": {}", shown(&status.name), paths.join(", "))
            }
        }
    }

    /// Prints an event; `line` is the JSON it came as, which may hold more than is known here.
    pub fn show(&mut self, event: &Event, line: &str) {
        if self.is_repeated(event) {
            return;
        }
        if self.json {
            return print(line);
        }
        if let Event::Progress { folder, need_files, need_bytes, to_delete } = event {
            return self.show_progress(folder, &to_do(*need_files, *need_bytes, *to_delete));
        }
        if let Some(text) = self.text(event) {
            self.clear_progress();
            print(&text);
        }
    }

    /// Whether this is the `ready` that the opening was.
    fn is_repeated(&mut self, event: &Event) -> bool {
        let Event::Ready { folder, path, .. } = event else { return false };
        self.folders.entry(folder.clone()).or_default().path = Some(path.clone());
        !self.ready.insert(folder.clone())
    }

    /// An event as a line, where it is worth one.
    fn text(&mut self, event: &Event) -> Option<String> {
        Some(match event {
            Event::Ready { path, .. } => format!("{} is ready", self.style.path(path)),
            Event::Connected { name, .. } => format!("{} {}", self.style.good("connected"), shown(name)),
            Event::Disconnected { name, .. } => {
                format!("{} {}", self.style.busy("disconnected"), shown(name))
            }
            Event::State { folder, state, in_sync } => return self.state_text(folder, *state, *in_sync),
            Event::Applied { folder, path, kind } => {
                self.folders.entry(folder.clone()).or_default().applied += 1;
                if !self.verbose {
                    return None;
                }
                format!("{} {}", change(*kind), Escaped(path.as_bytes()))
            }
            Event::Conflict { folder, path } => format!(
                "{} in {}: both versions are kept, one as {}",
                self.style.bad("conflict"),
                self.label(folder),
                Escaped(path.as_bytes())
            ),
            Event::Problem { folder, path, why } => {
                let at = if path.as_bytes().is_empty() {
                    String::new()
                } else {
                    format!(": {}", Escaped(path.as_bytes()))
                };
                format!("{} in {}{at}: {}", self.style.bad("problem"), self.label(folder), shown(why))
            }
            Event::Note { text } => shown(text),
            Event::Missed { count: n } => {
                format!("{} passed too fast to be shown", count(*n, "event", "events"))
            }
            Event::Progress { .. } | Event::Verifying { .. } | Event::Unknown => return None,
        })
    }

    fn state_text(&mut self, folder: &str, state: State, in_sync: bool) -> Option<String> {
        let known = self.folders.entry(folder.to_owned()).or_default();
        let before = std::mem::replace(known, Known { state: Some(state), in_sync, ..known.clone() });
        match state {
            State::Halted | State::Error if before.state != Some(state) => {
                let how = if state == State::Halted { "is halted" } else { "cannot go on" };
                Some(format!("{} {}: dunlin status says why", self.label(folder), self.style.bad(how)))
            }
            State::Idle if in_sync && (!before.in_sync || before.applied > 0) => {
                known.applied = 0;
                let came = match before.applied {
                    0 => String::new(),
                    n => format!(", {} came in", count(n, "change", "changes")),
                };
                Some(format!("{} {}{came}", self.label(folder), self.style.good("is in sync")))
            }
            _ => None,
        }
    }

    fn label(&self, folder: &str) -> String {
        match self.folders.get(folder).and_then(|known| known.path.as_ref()) {
            Some(path) => self.style.path(path),
            None => shown(folder),
        }
    }

    fn show_progress(&mut self, folder: &str, to_do: &str) {
        if !self.in_place {
            return;
        }
        if to_do.is_empty() {
            return self.clear_progress();
        }
        let text = format!("{}: {to_do}", self.label(folder));
        let mut out = std::io::stdout().lock();
        // No wrapping while the line is shown: what is longer than the terminal is cut, not scrolled.
        write!(out, "\r\x1b[K\x1b[?7l{text}\x1b[?7h").and_then(|()| out.flush()).ok();
        self.in_place_shown = true;
    }

    fn clear_progress(&mut self) {
        if std::mem::take(&mut self.in_place_shown) {
            write!(std::io::stdout(), "\r\x1b[K").ok();
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear_progress();
    }
}

fn ready_events(opening: &Opening) -> Vec<Event> {
    match opening.clone() {
        Opening::Shared(s) => {
            vec![Event::Ready { device: s.device, folder: s.folder, path: s.path, ticket: Some(s.ticket) }]
        }
        Opening::Joined(j) => {
            vec![Event::Ready { device: j.device, folder: j.folder, path: j.path, ticket: None }]
        }
        Opening::Running(status) if status.folders.is_empty() => {
            vec![Event::Note { text: "running, with no folder yet".to_owned() }]
        }
        Opening::Running(status) => status
            .folders
            .into_iter()
            .map(|f| Event::Ready { device: status.device.clone(), folder: f.id, path: f.path, ticket: None })
            .collect(),
    }
}

/// A change as a verb.
pub fn change(kind: Change) -> &'static str {
    match kind {
        Change::Created => "created",
        Change::Changed | Change::Other => "changed",
        Change::Metadata => "touched",
        Change::Moved => "moved",
        Change::Deleted => "deleted",
    }
}

fn shown(text: &str) -> String {
    Escaped(text.as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(verbose: bool) -> Live {
        let mut live = Live::new(false, verbose);
        live.style = Style::plain("/home/ada");
        live.folders.entry("f".into()).or_default().path = Some(AnyPath("/home/ada/Sync".into()));
        live
    }

    fn path(text: &str) -> AnyPath {
        AnyPath(text.into())
    }

    fn applied(name: &str) -> Event {
        Event::Applied { folder: "f".into(), path: path(name), kind: Change::Created }
    }

    fn state(state: State, in_sync: bool) -> Event {
        Event::State { folder: "f".into(), state, in_sync }
    }

    fn told(live: &mut Live, events: &[Event]) -> String {
        events.iter().filter_map(|e| live.text(e)).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn sharing_says_what_to_do_on_the_other_device() {
        let shared = Shared {
            device: "d".into(),
            name: "laptop".into(),
            folder: "f".into(),
            path: path("/home/ada/Sync"),
            ticket: "dunlin1abc".into(),
        };
        assert_eq!(
            live(false).opening_text(&Opening::Shared(shared)),
            "Sharing ~/Sync as \"laptop\". On another device:   dunlin join dunlin1abc ~/Sync"
        );
    }

    #[test]
    fn a_quiet_life_is_few_lines() {
        let device = |name: &str| ("d".to_owned(), name.to_owned());
        let (id, name) = device("desk\x1b[2Jtop");
        let events = [
            Event::Connected { device: id.clone(), name: name.clone() },
            state(State::Syncing, false),
            applied("a"),
            applied("b"),
            state(State::Idle, true),
            state(State::Idle, true),
            state(State::Syncing, false),
            state(State::Idle, true),
            Event::Conflict { folder: "f".into(), path: path("a.conflict\n") },
            Event::Problem { folder: "f".into(), path: path("x"), why: "permission denied".into() },
            Event::Problem { folder: "g".into(), path: path(""), why: "gone".into() },
            state(State::Halted, false),
            state(State::Halted, false),
            Event::Missed { count: 1 },
            Event::Unknown,
            Event::Disconnected { device: id, name },
        ];
        insta::assert_snapshot!(told(&mut live(false), &events), @r#"
        connected desk\u{1b}[2Jtop
        ~/Sync is in sync, 2 changes came in
        ~/Sync is in sync
        conflict in ~/Sync: both versions are kept, one as a.conflict\u{a}
        problem in ~/Sync: x: permission denied
        problem in g: gone
        ~/Sync is halted: dunlin status says why
        1 event passed too fast to be shown
        disconnected desk\u{1b}[2Jtop
        "#);
    }

    #[test]
    fn verbose_names_every_change() {
        let events = [applied("a"), applied("b"), state(State::Idle, true)];
        assert_eq!(
            told(&mut live(true), &events),
            "created a\ncreated b\n~/Sync is in sync, 2 changes came in"
        );
    }

    #[test]
    fn ready_is_said_once() {
        let mut live = live(false);
        let ready = Event::Ready { device: "d".into(), folder: "g".into(), path: path("/g"), ticket: None };
        assert!(!live.is_repeated(&ready));
        assert!(live.is_repeated(&ready));
    }
}
