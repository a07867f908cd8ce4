//! A TCP proxy before a Redis, which loses what it is told to lose.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::redis::Redis;

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    /// What clients said, a connection each.
    said: watch::Sender<Vec<Vec<u8>>>,
    /// The next request that holds this is carried out and not answered.
    lose: Mutex<Option<Vec<u8>>>,
    cuts: watch::Sender<usize>,
    refuses: watch::Sender<bool>,
}

impl Proxy {
    pub async fn before(redis: &Redis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared {
            said: watch::Sender::default(),
            lose: Mutex::default(),
            cuts: watch::Sender::default(),
            refuses: watch::Sender::default(),
        });
        let task = tokio::spawn(accept(listener, redis.port(), Arc::clone(&shared))).abort_handle();
        Self { port, shared, task }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next request that holds `mark` takes effect, its answer is lost and its connection ends.
    pub fn lose_answer_to(&self, mark: &str) {
        *self.shared.lose.lock().expect("a mark") = Some(mark.as_bytes().to_vec());
    }

    /// Whether an answer is still to be lost.
    pub fn is_armed(&self) -> bool {
        self.shared.lose.lock().expect("a mark").is_some()
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends all connections and lets nobody in.
    pub fn refuse(&self) {
        self.shared.refuses.send_replace(true);
        self.cut();
    }

    /// How often `mark` was said on each of the connections that said it.
    pub fn said(&self, mark: &str) -> Vec<usize> {
        let said = self.shared.said.borrow();
        said.iter().map(|said| count(said, mark.as_bytes())).filter(|count| *count > 0).collect()
    }

    /// Waits until `mark` was said so often.
    pub async fn heard(&self, mark: &str, times: usize) {
        let mut said = self.shared.said.subscribe();
        let heard = said
            .wait_for(|said| said.iter().map(|said| count(said, mark.as_bytes())).sum::<usize>() >= times);
        tokio::time::timeout(Duration::from_secs(30), heard).await.expect("heard in time").expect("a proxy");
    }
}

impl Shared {
    fn loses(&self, chunk: &[u8]) -> bool {
        self.lose.lock().expect("a mark").take_if(|mark| count(chunk, mark) > 0).is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn count(text: &[u8], mark: &[u8]) -> usize {
    text.windows(mark.len()).filter(|window| *window == mark).count()
}

async fn accept(listener: TcpListener, redis: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        if *shared.refuses.borrow() {
            continue;
        }
        let mut number = 0;
        shared.said.send_modify(|said| {
            number = said.len();
            said.push(Vec::new());
        });
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut cuts = shared.cuts.subscribe();
            tokio::select! {
                _ = carry(client, redis, number, &shared) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn carry(mut client: TcpStream, redis: u16, number: usize, shared: &Shared) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", redis)).await?;
    let (mut request, mut answer) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let mut losing = false;
    loop {
        tokio::select! {
            read = client.read(&mut request) => {
                let chunk = &request[..read?];
                if chunk.is_empty() {
                    return Ok(());
                }
                losing |= shared.loses(chunk);
                shared.said.send_modify(|said| said[number].extend_from_slice(chunk));
                server.write_all(chunk).await?;
            }
            read = server.read(&mut answer) => {
                let chunk = &answer[..read?];
                // What it was asked for is done.
                if chunk.is_empty() || losing {
                    return Ok(());
                }
                client.write_all(chunk).await?;
            }
        }
    }
}
