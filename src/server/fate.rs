//! What became of the connection below a stream: told by our listener, asked when the stream's place is given back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::reason::CloseReason;
use super::registry::Entry;

/// How a connection, or one stream of it, failed. Nothing while it works, or when the client closed it in order.
#[derive(Debug, Default)]
pub(crate) struct Fate(AtomicU8);

const REASONS: [CloseReason; 3] =
    [CloseReason::ClientTimeout, CloseReason::ClientAbort, CloseReason::NetworkError];

impl Fate {
    /// Notes an error of the socket; the first one counts.
    pub(crate) fn failed(&self, error: &io::Error) {
        self.note(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return,
            io::ErrorKind::TimedOut => CloseReason::ClientTimeout,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => CloseReason::ClientAbort,
            _ => CloseReason::NetworkError,
        });
    }

    /// Notes that the peer took nothing for too long, or did not answer.
    pub(crate) fn timed_out(&self) {
        self.note(CloseReason::ClientTimeout);
    }

    fn note(&self, reason: CloseReason) {
        let at = REASONS.iter().position(|known| *known == reason).and_then(|at| u8::try_from(at + 1).ok());
        let _ = self.0.compare_exchange(0, at.unwrap_or(0), Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn reason(&self) -> Option<CloseReason> {
        let at = usize::from(self.0.load(Ordering::Acquire));
        at.checked_sub(1).and_then(|at| REASONS.get(at)).copied()
    }
}

/// A stream, in the extensions of its answer, for the listener that carries it.
#[derive(Debug, Clone)]
pub(crate) struct Carried(pub(crate) Arc<Entry>);

impl Carried {
    /// Tells which connection carries it.
    pub(crate) fn by(&self, connection: &Arc<Fate>) {
        let _ = self.0.connection.set(Arc::clone(connection));
    }

    /// This stream alone was not read for too long.
    pub(crate) fn timed_out(&self) {
        self.0.fate.timed_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // K22
    #[test]
    fn the_first_failure_of_a_socket_is_the_reason() {
        for (kind, reason) in [
            (io::ErrorKind::TimedOut, Some(CloseReason::ClientTimeout)),
            (io::ErrorKind::ConnectionReset, Some(CloseReason::ClientAbort)),
            (io::ErrorKind::BrokenPipe, Some(CloseReason::ClientAbort)),
            (io::ErrorKind::HostUnreachable, Some(CloseReason::NetworkError)),
            (io::ErrorKind::WouldBlock, None),
        ] {
            let fate = Fate::default();
            fate.failed(&kind.into());
            assert_eq!(fate.reason(), reason, "{kind}");
            fate.failed(&io::ErrorKind::AddrInUse.into());
            assert_eq!(fate.reason(), reason.or(Some(CloseReason::NetworkError)), "{kind}");
        }
    }
}
