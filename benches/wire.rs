//! The parser's cost per event, and that it does not depend on how a body is cut.
//!
//! `cargo bench --bench wire`. Every input is made beforehand; the sink reads each field's length and no more,
//! so that the figures are the parser's own. The last lines print how much longer one line of 8 MiB takes in pieces of
//! 1 KiB than in one piece and in pieces of 64 KiB. In one piece nothing is copied, so that the first ratio is the price
//! of gathering the line in fresh memory: tens. The second shows that this price does not grow with the number of
//! pieces: about 1. A parser that looked at buffered bytes again with each piece would print thousands, and 64.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::fmt::Write as _;
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    use criterion::{Criterion, Throughput};
    use holdfast_sse::wire::{EventRef, Parser, ParserLimits, Sink};

    const CHUNK_BYTES: usize = 64 << 10;
    const EVENTS: u64 = 20_000;
    const LONG_LINE_BYTES: usize = 8 << 20;

    #[derive(Default)]
    struct Lengths {
        events: u64,
        bytes: usize,
    }

    impl Sink for Lengths {
        fn event(&mut self, event: EventRef<'_>) {
            self.events += 1;
            self.bytes += event.name.len() + event.data.len() + event.last_event_id.len();
        }
        fn id_only(&mut self, last_event_id: &str) {
            self.bytes += last_event_id.len();
        }
        fn retry(&mut self, _ms: u64) {}
    }

    fn parse(body: &[u8], chunk_bytes: usize) -> Lengths {
        let limits = ParserLimits { line_bytes_max: 16 << 20, event_bytes_max: 16 << 20 };
        let mut parser = Parser::new(limits, "");
        let mut lengths = Lengths::default();
        for chunk in black_box(body).chunks(chunk_bytes) {
            parser.feed(chunk, &mut lengths).expect("within the limits");
        }
        black_box(lengths)
    }

    /// `write_event` writes the event of a number.
    fn body(write_event: impl Fn(&mut String, u64)) -> Vec<u8> {
        let mut text = String::new();
        for number in 0..EVENTS {
            write_event(&mut text, number);
        }
        text.into_bytes()
    }

    const PAYLOAD: &str = r#"{"symbol":"HLDF","bid":101.25,"ask":101.27,"volume":120034,"venue":"XAMS","at":"2026-01-01T12:00"}"#;

    fn small_events(criterion: &mut Criterion) {
        let bodies = [
            ("data", body(|out, _| _ = write!(out, "data: {PAYLOAD}\n\n"))),
            ("id+data", body(|out, number| _ = write!(out, "id: k3f9-{number}\ndata: {PAYLOAD}\n\n"))),
            (
                "id+event+data",
                body(|out, number| _ = write!(out, "id: k3f9-{number}\nevent: quote\ndata: {PAYLOAD}\n\n")),
            ),
            (
                "id+event+data, CRLF",
                body(|out, number| {
                    _ = write!(out, "id: k3f9-{number}\r\nevent: quote\r\ndata: {PAYLOAD}\r\n\r\n");
                }),
            ),
            (
                "id+data, not ASCII",
                body(|out, number| {
                    _ = write!(
                        out,
                        "id: k3f9-{number}\ndata: {{\"název\":\"Žluťoučký kůň 🐎 příšerně úpěl ďábelské ódy\"}}\n\n"
                    )
                }),
            ),
            (
                "three data lines",
                body(|out, _| {
                    _ = write!(
                        out,
                        "data: {{\ndata:   \"symbol\": \"HLDF\", \"bid\": 101.25, \"ask\": 101.27\ndata: }}\n\n"
                    )
                }),
            ),
        ];
        let mut group = criterion.benchmark_group("small events, 64 KiB chunks");
        group.throughput(Throughput::Elements(EVENTS));
        for (name, body) in &bodies {
            assert_eq!(parse(body, CHUNK_BYTES).events, EVENTS);
            group.bench_function(*name, |bencher| bencher.iter(|| parse(body, CHUNK_BYTES)));
        }
        group.finish();
    }

    fn long_line(criterion: &mut Criterion) {
        let mut body = b"data: ".to_vec();
        body.resize(LONG_LINE_BYTES, b'x');
        body.extend_from_slice(b"\n\n");
        let mut group = criterion.benchmark_group("one line of 8 MiB");
        group.throughput(Throughput::Bytes(body.len() as u64)).sample_size(20);
        for (name, chunk_bytes) in [("one chunk", usize::MAX), ("1 KiB chunks", 1 << 10)] {
            group.bench_function(name, |bencher| bencher.iter(|| parse(&body, chunk_bytes)));
        }
        group.finish();

        let seconds = |chunk_bytes| fastest(|| parse(&body, chunk_bytes)).as_secs_f64();
        let (whole, large, small) = (seconds(usize::MAX), seconds(64 << 10), seconds(1 << 10));
        println!("one line of 8 MiB, 1 KiB chunks against one chunk: {:.2} times", small / whole);
        println!("one line of 8 MiB, 1 KiB chunks against 64 KiB chunks: {:.2} times", small / large);
    }

    /// The fastest of several runs: the one that was disturbed least.
    fn fastest<T>(mut run: impl FnMut() -> T) -> Duration {
        let time = |_| {
            let start = Instant::now();
            black_box(run());
            start.elapsed()
        };
        (0..15).map(time).min().expect("it ran")
    }

    pub(crate) fn run() {
        let mut criterion = Criterion::default().configure_from_args();
        small_events(&mut criterion);
        long_line(&mut criterion);
        criterion.final_summary();
    }
}

fn main() {
    #[cfg(not(target_family = "wasm"))]
    native::run();
}
