//! Undos of undos, what was done before a mistake, and moved directories.

use super::*;

#[test]
fn an_undo_is_undone_however_often_and_one_that_takes_nothing_back_fails() {
    let (_temp, a, b, c) = three();
    let before = settle("before", &[&a, &b, &c]);
    (0..FILES).for_each(|i| write(b.path(file(i)), ""));
    let after = settle("emptied", &[&a, &b, &c]);
    for n in 0..7 {
        // The journal knows seconds.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let undone = json(&a, &["undo"]);
        assert_eq!((&undone["count"], &undone["brought_back"]), (&FILES.into(), &(n > 0).into()), "{undone}");
        let expected = if n % 2 == 0 { &before } else { &after };
        assert_eq!(differences(&settle("undone", &[&a, &b, &c]), expected), Vec::<String>::new(), "{n}");
    }
    // Said beforehand, and afterwards.
    for node in [&a, &c] {
        refused(node, &["undo", "--by", "b"], &["as it was before (60: d/1, d/10, ", "taken back already"]);
        let (code, out, _) = node.asks(&["undo", "--dry-run"]);
        assert!(code == 0 && out.contains("that was an undo, or a copy of what was"), "{out}");
    }
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (code, out, err) = a.asks(&["undo"]);
    assert_eq!((code, out.matches("what it had brought back goes again").count()), (0, 2), "{out}{err}");
    assert_eq!(differences(&settle("and again", &[&a, &b, &c]), &after), Vec::<String>::new());
    // What was changed on top of it stays, and it is said what takes that back, too.
    let err = refused(&c, &["undo", "--by", "b"], &["was changed since (60: d/1, d/10, "]);
    let hint = err.split("hint: dunlin ").nth(1).unwrap();
    let command: Vec<&str> = hint.split(" takes back").next().unwrap().split(' ').collect();
    assert_eq!(json(&c, &command)["count"], FILES);
    assert_eq!(differences(&settle("back", &[&a, &b, &c]), &before), Vec::<String>::new());
}

#[test]
fn good_work_before_a_mistake_stays() {
    let (_temp, a, b, c) = three();
    write(b.path(file(0)), "a first save");
    b.wait();
    std::thread::sleep(std::time::Duration::from_secs(2));
    write(b.path(file(0)), "a good save");
    write(b.path(file(1)), "a good edit");
    fs::rename(b.path(file(2)), b.path("d/renamed")).unwrap();
    fs::remove_file(b.path(file(3))).unwrap();
    let meant = settle("good work", &[&a, &b, &c]);
    std::thread::sleep(std::time::Duration::from_secs(8));
    (0..FILES).filter(|i| ![2, 3].contains(i)).for_each(|i| write(b.path(file(i)), "a mistake"));
    write(b.path("d/renamed"), "a mistake");
    settle("a mistake", &[&a, &b, &c]);
    let said = json(&a, &["undo", "--dry-run"]);
    let beside = &said["beside"];
    assert_eq!((&said["count"], &beside["before"]), (&(FILES - 1).into(), &3.into()), "{said}");
    let (_, out, _) = a.asks(&["undo", "--dry-run"]);
    assert!(
        out.contains(" s earlier: 3 items; these earlier changes stay\n  this takes them back, too: dunlin"),
        "{out}"
    );
    let (code, out, err) = a.asks(&["undo"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &meant), Vec::<String>::new(), "{out}");
}

#[test]
fn many_good_edits_before_many_deletes_stay_and_what_was_undone_stays_undone() {
    let (_temp, a, b, c) = three();
    let pause = || std::thread::sleep(std::time::Duration::from_secs(11));
    let before = settle("before", &[&a, &b, &c]);
    (0..30).for_each(|i| write(b.path(file(i)), "a mistake"));
    settle("a mistake", &[&a, &b, &c]);
    assert_eq!(json(&a, &["undo"])["count"], 30);
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &before), Vec::<String>::new());
    (0..30).for_each(|i| write(c.path(file(i)), "good work"));
    let meant = settle("meant", &[&a, &b, &c]);
    pause();
    // What a deletes comes back alone, and then what c deletes; neither what a had undone nor what c had edited before.
    for (node, from) in [(&a, 30), (&c, 45)] {
        (from..from + 15).for_each(|i| fs::remove_file(node.path(file(i))).unwrap());
        settle("a slip", &[&a, &b, &c]);
        let undone = json(&b, &["undo"]);
        assert_eq!(undone["count"], 15, "{undone}");
        assert_eq!(differences(&settle("taken back", &[&a, &b, &c]), &meant), Vec::<String>::new());
    }
}

#[test]
fn a_directory_moved_by_mistake_is_moved_back_and_nothing_older_is_redone() {
    let (_temp, a, b, c) = three();
    let before = settle("before", &[&a, &b, &c]);
    (0..FILES).for_each(|i| write(b.path(file(i)), "garbage"));
    settle("garbage", &[&a, &b, &c]);
    assert_eq!(json(&a, &["undo"])["count"], FILES);
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &before), Vec::<String>::new());
    std::thread::sleep(std::time::Duration::from_secs(4));
    fs::create_dir(b.path("sub")).unwrap();
    fs::rename(b.path("d"), b.path("sub/d")).unwrap();
    settle("moved", &[&a, &b, &c]);
    let undone = json(&a, &["undo"]);
    assert_eq!((&undone["fates"], &undone["by"]), (&serde_json::json!([["moved", 1]]), &"b".into()));
    let mut all = settle("moved back", &[&a, &b, &c]);
    assert!(all.remove(&b"sub"[..]).is_some());
    assert_eq!(differences(&all, &before), Vec::<String>::new());
}

#[test]
fn each_of_two_undos_in_a_moment_is_one_of_its_own() {
    let (_temp, a, b, c) = three();
    let before = settle("before", &[&a, &b, &c]);
    (0..15).for_each(|i| write(b.path(file(i)), "garbage of b"));
    (30..45).for_each(|i| fs::remove_file(c.path(file(i))).unwrap());
    settle("two mistakes", &[&a, &b, &c]);
    for who in ["b", "c"] {
        assert_eq!(json(&a, &["undo", "--by", who])["count"], 15);
    }
    assert_eq!(differences(&settle("undone", &[&a, &b, &c]), &before), Vec::<String>::new());
    // The last of the two is undone, and that again.
    for deleted in [true, false, true, false] {
        let undone = json(&a, &["undo"]);
        assert_eq!(undone["count"], 15, "{undone}");
        let all = settle("the last one", &[&a, &b, &c]);
        let lacks = (0..FILES).filter(|i| !all.contains_key(file(*i).as_bytes())).count();
        assert_eq!(lacks, if deleted { 15 } else { 0 });
        assert!((0..15).all(|i| all[file(i).as_bytes()] == before[file(i).as_bytes()]));
    }
}
