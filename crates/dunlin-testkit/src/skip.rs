//! What is told past the capture of a test's output: that a test did not run, and figures.

use std::io::Write;
use std::process::Command;

/// Set where every test has what it needs (`.ci/run`): to skip one is to fail there.
const MUST_RUN: &str = "DUNLIN_TESTS_MUST_RUN";

/// Set by `.ci/run`, and by who has the time: what takes a minute or longer by its nature runs too.
const LONG: &str = "DUNLIN_LONG";

/// A line that is seen although the test passes: a test's `print` is shown only when it fails.
pub fn say(line: &str) {
    // That nobody reads it is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Says that a test is left out for want of something that could be installed or allowed; panics where every test
/// must run.
pub fn skipped(what: &str, why: &str) {
    say(&format!("SKIPPED: {what}: {why}"));
    assert!(std::env::var_os(MUST_RUN).is_none(), "{what} is skipped although {MUST_RUN} is set: {why}");
}

/// Whether what takes a minute or longer is to run; says so when not.
pub fn has_time(what: &str) -> bool {
    let has = [LONG, MUST_RUN].iter().any(|name| std::env::var_os(name).is_some());
    if !has {
        say(&format!("LEFT OUT: {what}: it takes more than a minute; {LONG}=1 has it run"));
    }
    has
}

/// Whether a program is there and can do what is asked of it; says loudly when not, as [`skipped`] does.
pub fn can(what: &str, program: &str, args: &[&str]) -> bool {
    let ok = Command::new(program).args(args).output().is_ok_and(|o| o.status.success());
    if !ok {
        skipped(what, &format!("`{program} {}` does not work here", args.join(" ")));
    }
    ok
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: &str = "skip::tests::what_is_skipped_here_alone";

    /// What a test that is skipped ends with and says, where all must run and elsewhere.
    fn run(must_run: bool) -> (bool, String) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", ALONE, "--ignored"]).env_remove(MUST_RUN);
        if must_run {
            child.env(MUST_RUN, "1");
        }
        let output = child.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    #[test]
    fn a_skip_is_seen_though_its_test_passes_and_fails_where_all_must_run() {
        let (passed, said) = run(false);
        assert!(passed && said.contains("SKIPPED: a sample: `no-such-program --version`"), "{said}");
        let (passed, said) = run(true);
        assert!(!passed && said.contains("SKIPPED: a sample"), "{said}");
    }

    #[test]
    #[ignore = "run by a_skip_is_seen_though_its_test_passes_and_fails_where_all_must_run"]
    fn what_is_skipped_here_alone() {
        assert!(!can("a sample", "no-such-program", &["--version"]));
    }
}
