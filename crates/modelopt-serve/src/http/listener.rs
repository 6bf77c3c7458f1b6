//! Sockets, TLS, and the end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use hyper_util::rt::TokioTimer;

/// Where and how connections are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The address; port 0 for any that is free.
    pub address: SocketAddr,
    /// How long the head of a request may take.
    pub header_time: Duration,
    /// The certificate and key, where connections are encrypted.
    pub tls: Option<Tls>,
}

/// Files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The chain of certificates, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// Why nothing can be heard.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate or its key cannot be used.
    #[error("cannot use the certificate {} with the key {}: {source}", .tls.certificate.display(), .tls.key.display())]
    Certificate {
        /// The files.
        tls: Tls,
        /// What is wrong with them.
        source: io::Error,
    },
}

/// A socket that is heard, before anything is answered on it.
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    settings: ListenerSettings,
    tls: Option<RustlsConfig>,
    handle: Handle<SocketAddr>,
}

impl Listener {
    /// Opens a socket and reads the certificate.
    ///
    /// # Errors
    /// If one of them cannot be had.
    pub async fn open(settings: ListenerSettings) -> Result<Self, ListenError> {
        let refused = |source| ListenError::Address { address: settings.address, source };
        let socket = TcpListener::bind(settings.address).map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let tls = match &settings.tls {
            None => None,
            Some(tls) => Some(
                RustlsConfig::from_pem_file(&tls.certificate, &tls.key)
                    .await
                    .map_err(|source| ListenError::Certificate { tls: tls.clone(), source })?,
            ),
        };
        Ok(Listener { socket, address, settings, tls, handle: Handle::new() })
    }

    /// The address that it is heard on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What ends it from elsewhere.
    pub fn control(&self) -> Control {
        Control {
            handle: self.handle.clone(),
            tls: self.tls.clone().zip(self.settings.tls.clone()),
        }
    }

    /// Answers requests until it is ended.
    ///
    /// # Errors
    /// If connections cannot be taken any more.
    pub async fn serve(self, router: Router) -> io::Result<()> {
        let app = router.into_make_service_with_connect_info::<SocketAddr>();
        let header_time = self.settings.header_time;
        match self.tls {
            None => {
                let mut server = axum_server::from_tcp(self.socket)?.handle(self.handle);
                let http1 = &mut server.http_builder().http1();
                http1.timer(TokioTimer::new()).header_read_timeout(header_time);
                server.serve(app).await
            }
            Some(tls) => {
                let server = axum_server::from_tcp_rustls(self.socket, tls)?;
                let mut server = server.handle(self.handle);
                let http1 = &mut server.http_builder().http1();
                http1.timer(TokioTimer::new()).header_read_timeout(header_time);
                server.serve(app).await
            }
        }
    }
}

/// Ends a listener, and has it read its certificate again.
#[derive(Clone)]
pub struct Control {
    handle: Handle<SocketAddr>,
    tls: Option<(RustlsConfig, Tls)>,
}

impl Control {
    /// Takes no more connections; those that are open end with their requests, or after a time.
    pub fn end(&self, within: Duration) {
        self.handle.graceful_shutdown(Some(within));
    }

    /// Reads the certificate again. The old one stays where the new one cannot be used.
    ///
    /// # Errors
    /// If it cannot be used.
    pub async fn reload(&self) -> Result<(), ListenError> {
        let Some((config, tls)) = &self.tls else { return Ok(()) };
        let read = config.reload_from_pem_file(&tls.certificate, &tls.key).await;
        read.map_err(|source| ListenError::Certificate { tls: tls.clone(), source })
    }
}
