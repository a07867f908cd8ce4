//! What the operating system itself costs: a program that does nothing but write the same bytes to every socket, one
//! `write` each. No server that sends an event when it comes can be cheaper; it knows no log, no replay and no slow reader.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

/// Runs until it is ended; says where it listens.
pub(crate) fn run() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on http://{}", listener.local_addr()?);
    let subscribers = Arc::new(Mutex::new(Vec::new()));
    for socket in listener.incoming() {
        let (socket, subscribers) = (socket?, Arc::clone(&subscribers));
        socket.set_nodelay(true)?;
        // A publisher may connect long before it says so.
        std::thread::spawn(move || serve(socket, &subscribers));
    }
    Ok(())
}

fn serve(socket: TcpStream, subscribers: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if line.starts_with("POST") {
        return publish(reader, subscribers);
    }
    let mut socket = reader.into_inner();
    socket.write_all(HEAD)?;
    subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
    Ok(())
}

fn publish(mut reader: BufReader<TcpStream>, subscribers: &Mutex<Vec<TcpStream>>) -> io::Result<()> {
    loop {
        let mut length = 0;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(count) = line.strip_prefix("content-length:") {
                length = count.trim().parse().map_err(io::Error::other)?;
            }
        }
        let mut body = vec![0; length];
        io::Read::read_exact(&mut reader, &mut body)?;
        let event = [b"id: 1\ndata: ".as_slice(), &body, b"\n\n"].concat();
        // Those that went away are forgotten.
        let mut subscribers = subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain_mut(|socket| socket.write_all(&event).is_ok());
        drop(subscribers);
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}
