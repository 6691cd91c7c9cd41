use tempfile::TempDir;

use super::*;
use crate::store::OpenMode;

const T0: i64 = 1_700_000_000_000;

struct Board {
    folder: TempDir,
    control: Store,
    lease: Lease,
}

impl Board {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let control = Store::open(&folder.path().join("ledger.db"), OpenMode::ReadWrite).await.unwrap();
        let lease = control.lease("control", T0, 60_000).await.unwrap();
        control.clear_board(lease.epoch).await.unwrap();
        Self { folder, control, lease }
    }

    /// A store of its own, as another process has it.
    async fn worker(&self, id: &str) -> (Store, Enlisted) {
        let store = Store::open(&self.folder.path().join("ledger.db"), OpenMode::ReadWrite).await.unwrap();
        let place = store.enlist(id, "work", T0, 10_000).await.unwrap();
        (store, place)
    }

    async fn offer(&self, run: &str) {
        self.control.offer(self.lease.epoch, "work", run, "{\"job\": 1}").await.unwrap();
    }
}

fn runs(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_step_is_claimed_once_in_order_and_its_reports_come_back_in_order() {
    let board = Board::new().await;
    let ((one, first), (two, second)) = (board.worker("one").await, board.worker("two").await);
    assert_eq!(one.claim(&first, "work").await.unwrap(), None);
    board.offer("r1").await;
    board.offer("r2").await;
    let task = one.claim(&first, "work").await.unwrap().expect("a step");
    let wanted = Task { run: "r1".to_owned(), epoch: board.lease.epoch, body: "{\"job\": 1}".to_owned() };
    assert_eq!(task, wanted);
    assert_eq!(two.claim(&second, "stream").await.unwrap(), None, "of another role");
    assert_eq!(two.claim(&second, "work").await.unwrap().expect("a step").run, "r2");
    assert_eq!(two.claim(&second, "work").await.unwrap(), None);

    assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::Kept);
    assert_eq!(two.report(&second, "r2", "2").await.unwrap(), Reported::Kept);
    assert_eq!(one.report(&first, "r1", "3").await.unwrap(), Reported::Kept);
    assert_eq!(two.report(&second, "r1", "4").await.unwrap(), Reported::NotOurs);
    let epoch = board.lease.epoch;
    let text = |run: &str, body: &str| (run.to_owned(), body.to_owned());
    let taken = board.control.take_reports(epoch, 2).await.unwrap();
    assert_eq!(taken, [text("r1", "1"), text("r2", "2")]);
    assert_eq!(board.control.take_reports(epoch, 9).await.unwrap(), [text("r1", "3")]);
    assert_eq!(board.control.take_reports(epoch, 9).await.unwrap(), []);
    board.control.end_task(epoch, "r1").await.unwrap();
    assert_eq!(one.report(&first, "r1", "5").await.unwrap(), Reported::NotOurs);
    assert_eq!(one.wanted(&first).await.unwrap(), runs(&[]));
}

#[tokio::test]
async fn a_cancelled_step_is_no_longer_wanted() {
    let board = Board::new().await;
    let (one, first) = board.worker("one").await;
    let epoch = board.lease.epoch;
    board.offer("r1").await;
    board.offer("r2").await;
    let _ = one.claim(&first, "work").await.unwrap();
    assert_eq!(one.wanted(&first).await.unwrap(), runs(&["r1"]));
    assert_eq!(board.control.cancel_task(epoch, "r1").await.unwrap(), Cancelled::Asked);
    assert_eq!(one.wanted(&first).await.unwrap(), runs(&[]));
    // It still tells how it ended.
    assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::Kept);
    assert_eq!(board.control.cancel_task(epoch, "r2").await.unwrap(), Cancelled::Unbegun);
    assert_eq!(one.claim(&first, "work").await.unwrap(), None);
    assert_eq!(board.control.cancel_task(epoch, "r2").await.unwrap(), Cancelled::Gone);
}

#[tokio::test]
async fn a_worker_that_is_gone_or_silent_loses_its_steps_and_its_epoch() {
    let board = Board::new().await;
    let ((one, first), (two, second)) = (board.worker("one").await, board.worker("two").await);
    board.offer("r1").await;
    board.offer("r2").await;
    let old = one.claim(&first, "work").await.unwrap().expect("a step");
    let _ = two.claim(&second, "work").await.unwrap();
    assert_eq!(board.control.lost_tasks(T0).await.unwrap(), runs(&[]));
    assert_eq!(board.control.workers("work", T0).await.unwrap(), 2);
    // Silent for too long.
    two.beat(&second, T0 + 5_000, 10_000).await.unwrap();
    assert_eq!(board.control.lost_tasks(T0 + 10_000).await.unwrap(), runs(&["r1"]));
    // Gone: its lock goes with it, long before its time is up.
    drop(second);
    assert_eq!(board.control.lost_tasks(T0).await.unwrap(), runs(&["r2"]));
    assert_eq!(board.control.workers("work", T0).await.unwrap(), 1);

    let raised = board.control.give_up(&board.lease, &runs(&["r1", "r2"])).await.unwrap();
    assert_eq!(raised.epoch, old.epoch + 1);
    assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::NotOurs, "it was only slow");
    // The controller is the same one: it goes on under the new epoch, and only under that.
    assert!(board.control.append(raised.epoch, T0, &[]).await.is_ok());
    let stale = board.control.append(board.lease.epoch, T0, &[]).await;
    assert!(matches!(stale, Err(StoreError::Fenced { .. })), "{stale:?}");
    let renewed = board.control.renew(&raised, T0, 60_000).await.unwrap();
    assert_eq!(renewed.epoch, raised.epoch);
    let other = Store::open(&board.folder.path().join("ledger.db"), OpenMode::ReadWrite).await.unwrap();
    let refused = other.lease("other", T0, 1_000).await;
    assert!(matches!(refused, Err(StoreError::LeaseHeld { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_new_controller_clears_the_board_and_an_old_one_may_not_touch_it() {
    let board = Board::new().await;
    let (one, first) = board.worker("one").await;
    let (_, gone) = board.worker("two").await;
    drop(gone);
    board.offer("r1").await;
    let _ = one.claim(&first, "work").await.unwrap();
    assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::Kept);

    let next = Store::open(&board.folder.path().join("ledger.db"), OpenMode::ReadWrite).await.unwrap();
    let lease = next.lease("next", T0 + 60_000, 60_000).await.unwrap();
    next.clear_board(lease.epoch).await.unwrap();
    assert_eq!(next.take_reports(lease.epoch, 9).await.unwrap(), []);
    assert_eq!(one.wanted(&first).await.unwrap(), runs(&[]));
    assert_eq!(one.report(&first, "r1", "2").await.unwrap(), Reported::NotOurs);
    assert_eq!(next.workers("work", T0).await.unwrap(), 1, "the living one keeps its place");

    next.offer(lease.epoch, "work", "r2", "{}").await.unwrap();
    let _ = one.claim(&first, "work").await.unwrap();
    assert_eq!(one.report(&first, "r2", "3").await.unwrap(), Reported::Kept);
    let stale = board.control.take_reports(board.lease.epoch, 9).await;
    assert!(matches!(stale, Err(StoreError::Fenced { .. })), "{stale:?}");
    assert!(board.control.offer(board.lease.epoch, "work", "r3", "{}").await.is_err());
    assert!(board.control.cancel_task(board.lease.epoch, "r2").await.is_err());
    assert!(board.control.give_up(&board.lease, &runs(&["r2"])).await.is_err());
    assert_eq!(next.take_reports(lease.epoch, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_worker_that_leaves_gives_its_steps_back_and_reports_are_bounded() {
    let board = Board::new().await;
    let (one, first) = board.worker("one").await;
    board.offer("r1").await;
    let _ = one.claim(&first, "work").await.unwrap();
    for _ in 0..MOST_REPORTS {
        assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::Kept);
    }
    assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::Full);
    let _ = board.control.take_reports(board.lease.epoch, 1).await.unwrap();
    assert_eq!(one.report(&first, "r1", "1").await.unwrap(), Reported::Kept);
    one.dismiss(first).await.unwrap();
    assert_eq!(board.control.lost_tasks(T0).await.unwrap(), runs(&["r1"]));
    assert_eq!(board.control.workers("work", T0).await.unwrap(), 0);
}
