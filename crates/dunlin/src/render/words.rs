//! Colours, numbers and paths as words.

use dunlin_node::control::{AnyPath, Escaped, for_shell};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How to write for one reader.
#[derive(Clone, Debug, Default)]
pub struct Style {
    colour: bool,
    /// The user's home directory, written `~`.
    user_home: Option<PathBuf>,
}

impl Style {
    /// For this process: colours only on a terminal, and not with `NO_COLOR`.
    pub fn of(terminal: bool) -> Style {
        let set = |key| std::env::var_os(key).filter(|v| !v.is_empty());
        let dumb = set("TERM").is_some_and(|t| t == "dumb");
        Style {
            colour: terminal && !dumb && set("NO_COLOR").is_none(),
            user_home: set("HOME").map(PathBuf::from).filter(|home| home.parent().is_some()),
        }
    }

    /// For a test: no colours, and this home directory.
    #[cfg(test)]
    pub fn plain(user_home: &str) -> Style {
        Style { colour: false, user_home: Some(user_home.into()) }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What is as it should be.
    pub fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What is under way.
    pub fn busy(&self, text: &str) -> String {
        self.paint("33", text)
    }

    /// What wants a person.
    pub fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What matters less.
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A title.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// A path for reading.
    pub fn path(&self, path: &AnyPath) -> String {
        match self.below_home(path.as_path()) {
            Some(rest) if rest.as_os_str().is_empty() => "~".to_owned(),
            Some(rest) => format!("~/{}", Escaped(rest.as_os_str().as_bytes())),
            None => Escaped(path.as_bytes()).to_string(),
        }
    }

    /// A path for pasting into a shell; `FOLDER` where that cannot be written harmlessly.
    pub fn shell_path(&self, path: &AnyPath) -> String {
        let below = self.below_home(path.as_path());
        let tilde = if below.is_some() { "~/" } else { "" };
        match for_shell(below.unwrap_or(path.as_path())) {
            Some(rest) => format!("{tilde}{rest}"),
            None => "FOLDER".to_owned(),
        }
    }

    fn below_home<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(self.user_home.as_deref()?).ok()
    }
}

/// `1 file`, `1,204 files`.
pub fn count(n: u64, thing: &str, things: &str) -> String {
    format!("{} {}", grouped(n), if n == 1 { thing } else { things })
}

/// A number, its digits in threes.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A size in decimal units, with at most one digit after the point.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return count(bytes, "byte", "bytes");
    }
    let mut tenths = u128::from(bytes) * 10 / 1000;
    let mut unit = 0;
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        tenths /= 1000;
        unit += 1;
    }
    match tenths {
        t if t >= 1000 || t % 10 == 0 => format!("{} {}", t / 10, UNITS[unit]),
        t => format!("{}.{} {}", t / 10, t % 10, UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let sizes = [0, 1, 999, 1000, 1550, 123_456, 3_400_000, 1 << 30, u64::MAX].map(size);
        assert_eq!(
            sizes,
            ["0 bytes", "1 byte", "999 bytes", "1 kB", "1.5 kB", "123 kB", "3.4 MB", "1 GB", "18.4 EB"]
        );
        assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
        assert_eq!(count(100, "file", "files"), "100 files");
    }

    #[test]
    fn paths_are_shown_short_and_pasted_safely() {
        let style = Style::plain("/home/ada");
        let both = |path: &[u8]| {
            let path = AnyPath::from(path.to_vec());
            (style.path(&path), style.shell_path(&path))
        };
        let same = |s: &str| (s.to_owned(), s.to_owned());
        assert_eq!(both(b"/home/ada/Sync"), same("~/Sync"));
        assert_eq!(both(b"/home/adam/Sync"), same("/home/adam/Sync"));
        assert_eq!(both(b"/home/ada/my dir").1, "~/'my dir'");
        assert_eq!(both(b"/a'b;rm -rf $(x)").1, r"'/a'\''b;rm -rf $(x)'");
        assert_eq!(both(b"/a\x1b[31m\xff"), (r"/a\u{1b}[31m\xff".to_owned(), "FOLDER".to_owned()));
    }
}
