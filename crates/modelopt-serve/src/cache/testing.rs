//! Answers, keys and a Redis for tests.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use modelopt_graph::Tensor;

use super::CacheKey;
use crate::{Answer, Timing};

/// An answer with those elements.
pub(super) fn answer(elements: &[f32]) -> Answer {
    let tensor = Tensor::of(vec![elements.len()], elements).unwrap();
    let timing = Timing { batch_rows: 1, compute: Duration::from_millis(3), ..Timing::default() };
    Answer { outputs: [("y".to_owned(), tensor)].into_iter().collect(), timing }
}

/// One of many keys.
pub(super) fn key(seed: u64) -> CacheKey {
    CacheKey::planted(seed)
}

/// A Redis of its own on a free port of the loopback interface, that keeps nothing on the disk.
pub(super) struct RedisServer {
    port: u16,
    process: Child,
}

impl RedisServer {
    pub(super) fn start() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let server = RedisServer { port, process: run(port) };
        server.wait_until_it_listens();
        server
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(super) fn restart(&mut self) {
        self.process = run(self.port);
        self.wait_until_it_listens();
    }

    /// Lets it hold its connections and answer nothing.
    pub(super) fn hang(&self) {
        self.signal("STOP");
    }

    pub(super) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn wait_until_it_listens(&self) {
        for _ in 0..500 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis-server does not listen on {}", self.port);
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn run(port: u16) -> Child {
    let settings = format!("bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\n");
    let mut process = Command::new("redis-server")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    process.stdin.take().unwrap().write_all(settings.as_bytes()).unwrap();
    process
}
