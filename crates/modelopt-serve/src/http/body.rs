//! Bodies within limits: bytes are counted while they come, and again while they are unpacked.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use futures_util::StreamExt;

use crate::ServeError;

/// Bodies that are packed and larger than this are unpacked where that may block.
const LARGE: usize = 64 << 10;

/// How large a body may be, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes, as they come and when they are unpacked.
    pub bytes: usize,
    /// From the head of the request to the last byte.
    pub time: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        BodyLimits { bytes: 64 << 20, time: Duration::from_secs(30) }
    }
}

/// Reads a whole body, unpacked.
///
/// # Errors
/// If it is too large, too slow, or not packed as it says.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
) -> Result<Bytes, ServeError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if let Some(declared) = declared.and_then(|text| text.parse::<u64>().ok())
        && declared > limits.bytes as u64
    {
        return Err(too_large(declared, limits));
    }
    let packing = Packing::of(headers)?;
    let packed = tokio::time::timeout(limits.time, collected(body, limits)).await;
    let packed = packed.map_err(|_| {
        let seconds = limits.time.as_secs_f64();
        ServeError::TooSlow(format!("the body did not come within {seconds} s"))
    })??;
    let Some(packing) = packing else { return Ok(packed) };
    let limits = *limits;
    if packed.len() <= LARGE {
        return packing.unpacked(&packed, &limits);
    }
    let unpacked = tokio::task::spawn_blocking(move || packing.unpacked(&packed, &limits));
    unpacked.await.unwrap_or_else(|_| Err(ServeError::Runtime("unpacking broke off".to_owned())))
}

async fn collected(body: Body, limits: &BodyLimits) -> Result<Bytes, ServeError> {
    let mut stream = body.into_data_stream();
    let broken = |error: axum::Error| ServeError::Invalid(format!("the body broke off: {error}"));
    // Most bodies are one piece.
    let Some(first) = stream.next().await.transpose().map_err(broken)? else {
        return Ok(Bytes::new());
    };
    let mut all = None;
    let mut size = first.len();
    while let Some(piece) = stream.next().await.transpose().map_err(broken)? {
        size += piece.len();
        if size > limits.bytes {
            return Err(too_large(size as u64, limits));
        }
        all.get_or_insert_with(|| BytesMut::from(first.as_ref())).extend_from_slice(&piece);
    }
    if size > limits.bytes {
        return Err(too_large(size as u64, limits));
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

fn too_large(bytes: u64, limits: &BodyLimits) -> ServeError {
    ServeError::TooLarge { what: "the body", bytes, limit: limits.bytes as u64 }
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Gzip,
    /// Which means zlib.
    Deflate,
}

impl Packing {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, ServeError> {
        let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(None) };
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Packing::Gzip)),
            "deflate" => Ok(Some(Packing::Deflate)),
            _ => Err(ServeError::UnsupportedMedia(
                "this content encoding is not read here; gzip and deflate are".to_owned(),
            )),
        }
    }

    fn unpacked(self, packed: &[u8], limits: &BodyLimits) -> Result<Bytes, ServeError> {
        match self {
            Packing::Gzip => within(MultiGzDecoder::new(packed), packed, limits),
            Packing::Deflate => within(ZlibDecoder::new(packed), packed, limits),
        }
    }
}

fn within(decoder: impl Read, packed: &[u8], limits: &BodyLimits) -> Result<Bytes, ServeError> {
    let mut out = Vec::with_capacity(packed.len().saturating_mul(2).min(limits.bytes));
    decoder.take(limits.bytes as u64 + 1).read_to_end(&mut out).map_err(|error| {
        ServeError::Invalid(format!("the body is not packed as it says: {error}"))
    })?;
    if out.len() > limits.bytes {
        let (bytes, limit) = (out.len() as u64, limits.bytes as u64);
        return Err(ServeError::TooLarge { what: "the unpacked body", bytes, limit });
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    const SMALL: BodyLimits = BodyLimits { bytes: 1000, time: Duration::from_millis(200) };

    fn headers(name: axum::http::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn packed_bodies_are_unpacked() {
        let text = b"{\"inputs\": []}".repeat(20);
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(&text).unwrap();
        let zlib = zlib.finish().unwrap();
        for (encoding, packed) in
            [("gzip", gzip(&text)), ("Deflate", zlib), ("identity", text.clone())]
        {
            let headers = headers(CONTENT_ENCODING, encoding);
            let read = read(&headers, Body::from(packed), &SMALL).await.unwrap();
            assert_eq!(read, text, "{encoding}");
        }
    }

    #[tokio::test]
    async fn what_is_declared_too_large_is_refused_before_it_comes() {
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let headers = headers(CONTENT_LENGTH, "209715200");
        let error = read(&headers, never, &SMALL).await.unwrap_err();
        assert_eq!(error.to_string(), "the body is 209715200 bytes, but at most 1000 are taken");
    }

    #[tokio::test]
    async fn what_becomes_too_large_is_refused_on_the_way() {
        let pieces = (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 64])));
        let endless = Body::from_stream(futures_util::stream::iter(pieces));
        let error = read(&HeaderMap::new(), endless, &SMALL).await.unwrap_err();
        assert!(matches!(error, ServeError::TooLarge { bytes: 1024, .. }), "{error}");
        let whole = Body::from(vec![0; 1001]);
        assert_eq!(read(&HeaderMap::new(), whole, &SMALL).await.unwrap_err().status(), 413);
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 100_000);
        let limits = BodyLimits { bytes: 200_000, ..SMALL };
        let headers = headers(CONTENT_ENCODING, "gzip");
        let error = read(&headers, Body::from(bomb), &limits).await.unwrap_err();
        assert!(matches!(error, ServeError::TooLarge { bytes: 200_001, .. }), "{error}");
    }

    #[tokio::test]
    async fn slow_broken_and_oddly_packed_bodies_are_refused() {
        let pending = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let error = read(&HeaderMap::new(), Body::from_stream(pending), &SMALL).await.unwrap_err();
        assert_eq!(error.status(), 408);
        let packed = headers(CONTENT_ENCODING, "gzip");
        let error = read(&packed, Body::from("no gzip"), &SMALL).await.unwrap_err();
        assert_eq!(error.status(), 400);
        let brotli = headers(CONTENT_ENCODING, "br");
        let error = read(&brotli, Body::from("x"), &SMALL).await.unwrap_err();
        assert_eq!(error.status(), 415);
    }
}
