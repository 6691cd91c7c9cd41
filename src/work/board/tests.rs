use tempfile::TempDir;

use super::*;

const T0: i64 = 1_700_000_000_000;

struct Fixture {
    state: TempDir,
    board: Board,
}

impl Fixture {
    fn new() -> Self {
        let state = TempDir::new().unwrap();
        let board = Board::new(state.path(), 1).unwrap();
        Self { state, board }
    }

    /// A place as another process has it.
    fn worker(&self) -> Place {
        self.place(Role::Work)
    }

    fn place(&self, role: Role) -> Place {
        Place::take(self.state.path(), role, T0, 10_000).unwrap()
    }

    fn offer(&self, run: &str) {
        self.board.offer(Role::Work, run, "{\"job\": 1}").unwrap();
    }
}

fn runs(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn pair(run: &str, body: &str) -> (String, String) {
    (run.to_owned(), body.to_owned())
}

#[test]
fn a_step_is_claimed_once_in_order_and_its_reports_come_back_in_order() {
    let it = Fixture::new();
    let (one, two) = (it.worker(), it.worker());
    assert_eq!(one.claim().unwrap(), None);
    it.offer("r1");
    it.offer("r2");
    assert_eq!(it.place(Role::Stream).claim().unwrap(), None, "of another role");
    assert_eq!(one.claim().unwrap(), Some(pair("r1", "{\"job\": 1}")));
    assert_eq!(two.claim().unwrap(), Some(pair("r2", "{\"job\": 1}")));
    assert_eq!(two.claim().unwrap(), None);

    for number in 0..12 {
        assert_eq!(one.report("r1", &number.to_string()).unwrap(), Reported::Kept);
    }
    assert_eq!(two.report("r1", "of another").unwrap(), Reported::NotOurs);
    let expected: Vec<_> = (0..12).map(|number| pair("r1", &number.to_string())).collect();
    assert_eq!(it.board.reports().unwrap(), expected);
    assert_eq!(it.board.reports().unwrap(), []);
    it.board.end("r1").unwrap();
    assert_eq!(one.report("r1", "too late").unwrap(), Reported::NotOurs);
    assert_eq!(one.wanted().unwrap(), runs(&[]));
}

#[test]
fn many_workers_at_once_claim_every_step_exactly_once() {
    let it = Fixture::new();
    let all: BTreeSet<String> = (0..200).map(|number| format!("r{number:03}")).collect();
    for run in &all {
        it.offer(run);
    }
    let claim_all = || {
        let place = it.worker();
        let mut claimed = Vec::new();
        while let Some((run, _)) = place.claim().unwrap() {
            claimed.push(run);
        }
        claimed
    };
    let claimed: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim_all)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(claimed.len(), all.len());
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn a_cancelled_step_is_no_longer_wanted() {
    let it = Fixture::new();
    let one = it.worker();
    it.offer("r1");
    it.offer("r2");
    let _ = one.claim().unwrap();
    assert_eq!(one.wanted().unwrap(), runs(&["r1"]));
    assert_eq!(it.board.cancel("r1").unwrap(), Cancelled::Asked);
    assert_eq!(it.board.cancel("r1").unwrap(), Cancelled::Asked, "asked twice");
    assert_eq!(one.wanted().unwrap(), runs(&[]));
    // It still tells how it ended.
    assert_eq!(one.report("r1", "1").unwrap(), Reported::Kept);
    assert_eq!(it.board.cancel("r2").unwrap(), Cancelled::Unbegun);
    assert_eq!(one.claim().unwrap(), None);
    assert_eq!(it.board.cancel("r2").unwrap(), Cancelled::Gone);
    it.board.end("r1").unwrap();
    assert_eq!(it.board.cancel("r1").unwrap(), Cancelled::Gone);
}

#[test]
fn a_worker_that_is_gone_or_silent_loses_its_steps() {
    let it = Fixture::new();
    let (one, two) = (it.worker(), it.worker());
    it.offer("r1");
    it.offer("r2");
    let _ = (one.claim().unwrap(), two.claim().unwrap());
    assert_eq!(it.board.lost(T0).unwrap(), runs(&[]));
    assert_eq!(it.board.workers(Role::Work, T0).unwrap(), 2);
    assert_eq!(it.board.workers(Role::Stream, T0).unwrap(), 0);
    // Silent for too long, even if it is to be stopped anyway.
    two.beat(T0 + 5_000, 10_000).unwrap();
    assert_eq!(it.board.lost(T0 + 10_000).unwrap(), runs(&["r1"]));
    let _ = it.board.cancel("r1").unwrap();
    assert_eq!(it.board.lost(T0 + 10_000).unwrap(), runs(&["r1"]));
    // Gone: its lock goes with it, long before its time is up.
    drop(two);
    assert_eq!(it.board.lost(T0).unwrap(), runs(&["r2"]));
    assert_eq!(it.board.workers(Role::Work, T0).unwrap(), 1);

    it.board.end("r1").unwrap();
    it.board.end("r2").unwrap();
    assert_eq!(it.board.lost(T0 + 10_000).unwrap(), runs(&[]));
    assert_eq!(one.report("r1", "1").unwrap(), Reported::NotOurs, "it was only slow");
}

#[test]
fn a_new_controller_clears_the_board_and_an_old_one_may_not_touch_it() {
    let it = Fixture::new();
    let one = it.worker();
    drop(it.worker());
    it.offer("r1");
    let _ = one.claim().unwrap();
    assert_eq!(one.report("r1", "1").unwrap(), Reported::Kept);

    let next = Board::new(it.state.path(), 10).unwrap();
    assert_eq!(next.reports().unwrap(), []);
    assert_eq!(one.wanted().unwrap(), runs(&[]));
    assert_eq!(one.report("r1", "2").unwrap(), Reported::NotOurs);
    assert_eq!(next.workers(Role::Work, T0).unwrap(), 1, "the living one keeps its place");

    next.offer(Role::Work, "r2", "{}").unwrap();
    assert_eq!(one.claim().unwrap(), Some(pair("r2", "{}")));
    assert_eq!(one.report("r2", "3").unwrap(), Reported::Kept);
    let stale = it.board.offer(Role::Work, "r3", "{}");
    assert!(matches!(stale, Err(BoardError::TakenOver { epoch: 1 })), "{stale:?}");
    assert_eq!(it.board.cancel("r2").unwrap(), Cancelled::Gone);
    assert_eq!(it.board.reports().unwrap(), []);
    it.board.end("r2").unwrap();
    assert_eq!(next.reports().unwrap(), [pair("r2", "3")]);
}

#[test]
fn what_a_process_left_half_written_is_not_seen() {
    let it = Fixture::new();
    let one = it.worker();
    let folder = it.state.path().join("board/1");
    fs::write(folder.join("todo/.r1@work"), "{\"jo").unwrap();
    assert_eq!(one.claim().unwrap(), None);
    it.offer("r2");
    let _ = one.claim().unwrap();
    fs::write(folder.join("reports/.work-1.000000000000.r2"), "{").unwrap();
    assert_eq!(it.board.reports().unwrap(), []);
    fs::write(it.state.path().join("board/places/.work-2"), "").unwrap();
    assert_eq!(it.board.workers(Role::Work, T0).unwrap(), 1);
}

#[test]
fn a_torn_step_or_report_is_handed_on_to_whoever_says_that_it_is_none() {
    let it = Fixture::new();
    let one = it.worker();
    let folder = it.state.path().join("board/1");
    fs::write(folder.join("todo/r1@work"), [b'{', 0xff, 0xfe]).unwrap();
    let (run, body) = one.claim().unwrap().expect("a step");
    assert_eq!(run, "r1");
    assert!(serde_json::from_str::<serde_json::Value>(&body).is_err());
    fs::write(folder.join("reports/work-1.000000000000.r1"), [0xa5; 30]).unwrap();
    let reports = it.board.reports().unwrap();
    assert_eq!((reports.len(), reports[0].0.as_str()), (1, "r1"));
    assert_eq!(it.board.reports().unwrap(), []);
}

#[test]
fn a_worker_that_leaves_gives_its_steps_back_and_reports_are_bounded() {
    let it = Fixture::new();
    let one = it.worker();
    it.offer("r1");
    let _ = one.claim().unwrap();
    for _ in 0..MOST_REPORTS {
        assert_eq!(one.report("r1", "1").unwrap(), Reported::Kept);
    }
    assert_eq!(one.report("r1", "1").unwrap(), Reported::Full);
    assert_eq!(it.board.reports().unwrap().len(), MOST_REPORTS);
    assert_eq!(one.report("r1", "1").unwrap(), Reported::Kept);
    one.leave().unwrap();
    assert_eq!(it.board.lost(T0).unwrap(), runs(&["r1"]));
    assert_eq!(it.board.workers(Role::Work, T0).unwrap(), 0);
}

#[test]
fn a_claimed_step_that_is_stopped_at_once_is_still_known_to_its_worker() {
    let it = Fixture::new();
    let one = it.worker();
    it.offer("r1");
    // A board that vanishes between looking and taking, as under a new controller, is no error.
    fs::remove_file(it.state.path().join("board/1/todo/r1@work")).unwrap();
    assert_eq!(one.claim().unwrap(), None);
    it.offer("r2");
    assert_eq!(one.claim().unwrap(), Some(pair("r2", "{\"job\": 1}")));
    assert_eq!(it.board.cancel("r2").unwrap(), Cancelled::Asked);
    assert_eq!((one.claim().unwrap(), one.wanted().unwrap()), (None, runs(&[])));
}

#[test]
fn a_board_of_another_history_is_never_taken_up() {
    let it = Fixture::new();
    it.offer("r1");
    drop(Board::new(it.state.path(), 1).unwrap());
    assert_eq!(it.worker().claim().unwrap(), None, "the same number, but not the same steps");
    let _later = Board::new(it.state.path(), 40).unwrap();
    let refused = Board::new(it.state.path(), 13);
    assert!(matches!(refused, Err(BoardError::OfLater { epoch: 13, .. })), "{refused:?}");
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let it = Fixture::new();
    let folder = it.state.path().join("board/1/reports");
    let name = "x".repeat(300);
    assert!(put(&folder, &name, "{}").is_err(), "longer than a file name may be");
    fs::create_dir(folder.join("taken-name")).unwrap();
    assert!(put(&folder, "taken-name", "{}").is_err(), "a folder is in its way");
    assert!(!folder.join(".taken-name").exists());
}
