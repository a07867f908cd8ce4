//! One server beside others, on one machine in one run: fan-out, memory of idle connections, latency, replay.
//!
//! `cargo xtask bench server [NAME...]`. The subscribers share the two cores with the server, so deliveries a second
//! say what both sides manage together; deliveries a second of the server's own processor time are its own.

#[cfg(not(target_family = "wasm"))]
mod bare;
#[cfg(not(target_family = "wasm"))]
mod load;
#[cfg(not(target_family = "wasm"))]
mod process;
#[cfg(not(target_family = "wasm"))]
mod subject;

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::io;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use crate::load::{self, Publisher, Seen};
    use crate::subject::Subject;

    const CONNECTIONS: usize = 5_000;
    const MESSAGES: usize = 200;
    const REPLAYED: u64 = 100_000;
    const PUBLISHERS: u64 = 32;
    /// Events that are published as fast as they are taken.
    const BURST: u64 = 320;

    /// A replay that took longer is not measured again.
    const SLOW_REPLAY_S: f64 = 5.0;

    type Start = fn(&str, &std::path::Path) -> io::Result<Subject>;

    const SUBJECTS: [(&str, Start); 5] = [
        ("memory", Subject::holdfast_memory),
        ("redb", Subject::holdfast_redb),
        ("better-sse", Subject::better_sse),
        ("nchan", Subject::nchan),
        ("bare", Subject::bare),
    ];

    #[derive(Debug)]
    struct Figures {
        name: &'static str,
        idle_kib: f64,
        deliveries: f64,
        deliveries_cpu: f64,
        p50_ms: f64,
        p99_ms: f64,
        /// Deliveries a second of its CPU while events come faster than they go out one by one.
        burst_cpu: f64,
        /// Events a second, and a second of its CPU; `None` where nothing is kept.
        replay: Option<(f64, f64)>,
    }

    pub(crate) fn main() -> io::Result<()> {
        let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
        if std::env::args().any(|arg| arg == "--bare") {
            return crate::bare::run();
        }
        let bin = env!("CARGO_BIN_EXE_holdfast");
        println!(
            "{CONNECTIONS} connections, {MESSAGES} events of 100 bytes one after another, \
             replay of {REPLAYED}\n"
        );
        let mut all = Vec::new();
        for (name, start) in SUBJECTS {
            if wanted.is_empty() || wanted.iter().any(|one| one == name) {
                let dir = tempfile::tempdir()?;
                let subject = start(bin, dir.path())
                    .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
                // A thread for the sockets, as little as possible taken from the server.
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let figures = runtime.block_on(measure(&subject));
                all.push(figures.map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?);
                print(all.last());
            }
        }
        compare(&all);
        judge(&all);
        Ok(())
    }

    async fn measure(subject: &Subject) -> io::Result<Figures> {
        let seen = Arc::new(Seen::default());
        let mut publisher = Publisher::connect(subject).await?;
        // What a server allocates once is not a connection's.
        drop(load::subscribe(subject, 50, &seen).await?);
        publisher.publish("warm").await?;
        settle().await;
        let processes = subject.processes();
        let empty_kib = processes.resident_kib();
        let seen = Arc::new(Seen::default());
        let subscribers = load::subscribe(subject, CONNECTIONS, &seen).await?;
        settle().await;
        let idle_kib = (processes.resident_kib() as f64 - empty_kib as f64) / CONNECTIONS as f64;

        let everyone = CONNECTIONS as u64;
        let warm = 5;
        for n in 1..=warm {
            publisher.publish("warm").await?;
            seen.reach(n * everyone).await?;
        }
        let mut latencies_ms = Vec::new();
        let (begun, cpu) = (Instant::now(), processes.cpu_seconds());
        for n in 1..=MESSAGES as u64 {
            let sent = Instant::now();
            publisher.publish(&n.to_string()).await?;
            seen.reach((warm + n) * everyone).await?;
            latencies_ms.push(sent.elapsed().as_secs_f64() * 1000.0);
        }
        let (wall, cpu) = (begun.elapsed().as_secs_f64(), processes.cpu_seconds() - cpu);
        let deliveries = (MESSAGES * CONNECTIONS) as f64;
        latencies_ms.sort_by(f64::total_cmp);
        let spent = processes.cpu_seconds();
        publish_all(subject, BURST).await?;
        seen.reach((warm + MESSAGES as u64 + BURST) * everyone).await?;
        let burst_cpu = (BURST * everyone) as f64 / (processes.cpu_seconds() - spent);
        drop(subscribers);
        settle().await;

        let replay = if subject.keeps { Some(replay(subject, &mut publisher).await?) } else { None };
        Ok(Figures {
            name: subject.name,
            idle_kib,
            deliveries: deliveries / wall,
            deliveries_cpu: deliveries / cpu,
            p50_ms: latencies_ms[MESSAGES / 2],
            p99_ms: latencies_ms[MESSAGES * 99 / 100],
            burst_cpu,
            replay,
        })
    }

    /// Events a second, and a second of the server's processor time.
    async fn replay(subject: &Subject, publisher: &mut Publisher) -> io::Result<(f64, f64)> {
        let cursor = load::first_id(subject, publisher).await?;
        publish_all(subject, REPLAYED).await?;
        let processes = subject.processes();
        let (mut best, mut best_cpu) = (0.0_f64, 0.0_f64);
        for _ in 0..3 {
            let (begun, spent) = (Instant::now(), processes.cpu_seconds());
            let replayed = load::replay(subject, &cursor, REPLAYED / PUBLISHERS * PUBLISHERS).await? as f64;
            let wall = begun.elapsed().as_secs_f64();
            best = best.max(replayed / wall);
            // Processor time is counted in hundredths of a second.
            best_cpu = best_cpu.max(replayed / (processes.cpu_seconds() - spent).max(0.01));
            if wall > SLOW_REPLAY_S {
                break;
            }
        }
        Ok((best, best_cpu))
    }

    /// Publishes from several connections at once.
    async fn publish_all(subject: &Subject, events: u64) -> io::Result<()> {
        let mut publishers = tokio::task::JoinSet::new();
        for _ in 0..PUBLISHERS {
            let mut publisher = Publisher::connect(subject).await?;
            publishers.spawn(async move {
                for n in 0..events / PUBLISHERS {
                    publisher.publish(&n.to_string()).await?;
                }
                io::Result::Ok(())
            });
        }
        while let Some(outcome) = publishers.join_next().await {
            outcome.map_err(io::Error::other)??;
        }
        Ok(())
    }

    /// Nothing tells when a server has put its memory in order.
    async fn settle() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    fn print(figures: Option<&Figures>) {
        let Some(figures) = figures else { return };
        println!("{}", figures.name);
        println!("  resident for each idle connection   {:>10.1} KiB", figures.idle_kib);
        println!("  deliveries a second                 {:>10.0}", figures.deliveries);
        println!("  deliveries a second of its CPU      {:>10.0}", figures.deliveries_cpu);
        println!("  the same, of a burst                {:>10.0}", figures.burst_cpu);
        println!("  publish to last delivery, p50 / p99 {:>10.1} / {:.1} ms", figures.p50_ms, figures.p99_ms);
        if let Some((replay, replay_cpu)) = figures.replay {
            println!("  replayed a second                   {replay:>10.0}");
            println!("  replayed a second of its CPU        {replay_cpu:>10.0}");
        }
        println!();
    }

    /// The first one against each other.
    fn compare(all: &[Figures]) {
        let [ours, others @ ..] = all else { return };
        for other in others {
            print!(
                "{} / {}: deliveries {:.2}, of CPU {:.2}, of CPU in a burst {:.2}, p50 {:.2}, memory {:.2}",
                ours.name,
                other.name,
                ours.deliveries / other.deliveries,
                ours.deliveries_cpu / other.deliveries_cpu,
                ours.burst_cpu / other.burst_cpu,
                ours.p50_ms / other.p50_ms,
                ours.idle_kib / other.idle_kib,
            );
            match (ours.replay, other.replay) {
                // Less than one event a second is not a rate.
                (Some(_), Some((other, _))) if other < 1.0 => {
                    println!(", replay: the other's did not come in time")
                }
                (Some(ours), Some(other)) => {
                    println!(", replay {:.2}, of CPU {:.2}", ours.0 / other.0, ours.1 / other.1);
                }
                _ => println!(),
            }
        }
    }

    /// Idle connections may cost this much.
    const IDLE_KIB_MAX: f64 = 12.0;

    /// What we want of ourselves, and where it is not so.
    fn judge(all: &[Figures]) {
        let of = |name: &str| all.iter().find(|figures| figures.name.contains(name));
        let Some(ours) = of("holdfast") else { return };
        println!();
        let say = |what: &str, wanted: f64, reached: f64| {
            let verdict = if reached >= wanted { "so it is" } else { "NOT SO" };
            println!("{what}: {wanted:.1} times wanted, {reached:.2} reached: {verdict}");
        };
        if let Some(other) = of("better-sse") {
            say("deliveries of its CPU / better-sse", 5.0, ours.deliveries_cpu / other.deliveries_cpu);
            say("the same, of a burst", 5.0, ours.burst_cpu / other.burst_cpu);
            if let Some(bare) = of("bare") {
                println!(
                    "  (a program that does nothing but write to each socket reaches {:.2}: the rest is the kernel's)",
                    bare.deliveries_cpu / other.deliveries_cpu
                );
            }
        }
        if let Some(other) = of("Nchan") {
            say("deliveries of its CPU / Nchan", 1.0, ours.deliveries_cpu / other.deliveries_cpu);
            say("Nchan's p50 / ours", 1.0, other.p50_ms / ours.p50_ms);
        }
        say("12 KiB / memory of an idle connection", 1.0, IDLE_KIB_MAX / ours.idle_kib);
    }
}

#[cfg(not(target_family = "wasm"))]
fn main() -> std::io::Result<()> {
    native::main()
}

#[cfg(target_family = "wasm")]
fn main() {}
