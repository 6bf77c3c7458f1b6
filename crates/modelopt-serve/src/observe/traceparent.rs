//! Where a request belongs in a trace: the header `traceparent` of W3C's Trace Context.

use std::fmt;

/// The flag that says that the caller records this trace.
const SAMPLED: u8 = 1;

/// The trace of a request, and its own span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    parent: Option<u64>,
    flags: u8,
}

impl TraceContext {
    /// A new span in the trace that `header` names; in a new trace where there is no header, or none that
    /// can be read.
    pub fn of(header: Option<&str>) -> Self {
        let span = nonzero(rand::random);
        match header.and_then(parse) {
            Some((trace, parent, flags)) => {
                TraceContext { trace, span, parent: Some(parent), flags }
            }
            None => TraceContext { trace: nonzero(rand::random), span, parent: None, flags: 0 },
        }
    }

    /// The trace as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span of the request as 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }

    /// The span of the caller.
    pub fn parent_id(&self) -> Option<String> {
        self.parent.map(|parent| format!("{parent:016x}"))
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// The header for what is asked of others on behalf of the request.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags & SAMPLED)
    }
}

/// Zero stands for no trace and no span.
fn nonzero<T: Default + PartialEq>(random: impl Fn() -> T) -> T {
    loop {
        let number = random();
        if number != T::default() {
            return number;
        }
    }
}

/// Trace, span of the caller, and flags.
fn parse(header: &str) -> Option<(u128, u64, u8)> {
    let mut fields = header.trim().split('-');
    let (version, trace, parent) = (fields.next()?, fields.next()?, fields.next()?);
    let flags = fields.next()?;
    let version = hexadecimal(version, 2)?;
    // Later versions may say more; 255 is none.
    if version == 0xff || (version == 0 && fields.next().is_some()) {
        return None;
    }
    let (trace, parent) = (hexadecimal(trace, 32)?, hexadecimal(parent, 16)? as u64);
    (trace != 0 && parent != 0).then_some((trace, parent, hexadecimal(flags, 2)? as u8))
}

/// Exactly so many digits, in lower case.
fn hexadecimal(field: &str, digits: usize) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let right = field.len() == digits && field.bytes().all(lower);
    right.then(|| u128::from_str_radix(field, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const PARENT: &str = "00f067aa0ba902b7";

    #[test]
    fn a_request_is_a_span_of_its_own_in_the_trace_of_the_caller() {
        let context = TraceContext::of(Some(&format!("00-{TRACE}-{PARENT}-01")));
        assert_eq!(context.trace_id(), TRACE);
        assert_eq!(context.parent_id().unwrap(), PARENT);
        assert_ne!(context.span_id(), PARENT);
        assert!(context.is_sampled());
        let header = context.to_string();
        assert_eq!(header, format!("00-{TRACE}-{}-01", context.span_id()));
        let next = TraceContext::of(Some(&header));
        assert_eq!(
            (next.trace_id(), next.parent_id()),
            (context.trace_id(), Some(context.span_id()))
        );
    }

    #[test]
    fn later_versions_may_say_more_and_flags_are_kept_apart() {
        let later = TraceContext::of(Some(&format!("cc-{TRACE}-{PARENT}-02-more-to-come")));
        assert_eq!(later.trace_id(), TRACE);
        assert!(!later.is_sampled());
        assert!(later.to_string().ends_with("-00"));
    }

    #[test]
    fn where_no_header_can_be_read_a_trace_begins() {
        let broken = [
            String::new(),
            format!("00-{TRACE}-{PARENT}"),
            format!("00-{TRACE}-{PARENT}-01-more"),
            format!("ff-{TRACE}-{PARENT}-01"),
            format!("0-{TRACE}-{PARENT}-01"),
            format!("00-{}-{PARENT}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
            format!("00-{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{TRACE}-{PARENT}-0x"),
            format!("00-+{}-{PARENT}-01", &TRACE[1..]),
            format!("00-{}é-{PARENT}-01", &TRACE[2..]),
        ];
        for header in broken {
            let context = TraceContext::of(Some(&header));
            assert_eq!(context.parent_id(), None, "{header}");
            assert_ne!(context.trace_id(), TRACE);
            assert_eq!((context.trace_id().len(), context.span_id().len()), (32, 16));
        }
        assert_ne!(TraceContext::of(None), TraceContext::of(None));
    }
}
