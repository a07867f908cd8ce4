//! Group commit: events a second that a log on disk acknowledges, by how many publish at once.
//!
//! `cargo xtask bench log`. Each publisher waits for its acknowledgement before it says the next, as over HTTP. Beside it
//! the same with a sync for each event, and bare syncs of a file: what the disk itself can do. Disks differ; the ratios
//! are what can be compared.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::io::Write;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use holdfast_sse::server::log::{Data, NewEvent};
    use holdfast_sse::server::{EventLog, RedbLog, RedbOptions};

    const MEASURED: Duration = Duration::from_secs(3);
    const PUBLISHERS: [usize; 3] = [1, 16, 256];
    const EVENT_BYTES: usize = 200;

    pub(super) fn main() {
        let dir = tempfile::tempdir().expect("a folder");
        println!(
            "events of {EVENT_BYTES} bytes, each acknowledged when it is on disk; {MEASURED:?} for each figure"
        );
        let bare = syncs(dir.path());
        println!("a bare append and fdatasync of a file: {bare:.0}/s");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        println!("\npublishers   group commit   one sync each   ratio   ratio to bare syncs");
        for publishers in PUBLISHERS {
            let grouped = runtime.block_on(rate(publishers, RedbOptions::default()));
            let alone = RedbOptions { commit_events_max: 1, ..RedbOptions::default() };
            let single = runtime.block_on(rate(publishers, alone));
            println!(
                "{publishers:>10}   {grouped:>10.0}/s   {single:>11.0}/s   {:>5.1}   {:>5.2}",
                grouped / single,
                grouped / bare,
            );
        }
    }

    fn syncs(dir: &std::path::Path) -> f64 {
        let mut file = std::fs::File::create(dir.join("bare")).expect("a file");
        let event = [b'x'; EVENT_BYTES];
        let (start, mut count) = (Instant::now(), 0_u32);
        while start.elapsed() < MEASURED {
            file.write_all(&event).and_then(|()| file.sync_data()).expect("synced");
            count += 1;
        }
        f64::from(count) / start.elapsed().as_secs_f64()
    }

    async fn rate(publishers: usize, options: RedbOptions) -> f64 {
        let dir = tempfile::tempdir().expect("a folder");
        let log = Arc::new(RedbLog::open(dir.path(), options).expect("a log"));
        let start = Instant::now();
        let tasks: Vec<_> = (0..publishers)
            .map(|_| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let mut count = 0_u32;
                    while start.elapsed() < MEASURED {
                        let data = Data::Text("x".repeat(EVENT_BYTES));
                        let event = NewEvent { name: "n".to_owned(), data, key: None, state: None };
                        log.append("a", event).await.expect("stored");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.expect("published");
        }
        let seconds = start.elapsed().as_secs_f64();
        log.close().await;
        f64::from(count) / seconds
    }
}

#[cfg(not(target_family = "wasm"))]
fn main() {
    native::main();
}

#[cfg(target_family = "wasm")]
fn main() {}
