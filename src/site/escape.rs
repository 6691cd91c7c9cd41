//! The one place where foreign text becomes safe text.
//!
//! Templates (through tera's escape function) and the SVG writer share [`escape_into`], so a field is treated alike
//! wherever it appears. Escaping does not stop a `javascript:` link, hence [`web_address`].

use std::io::{self, Write};

/// Writes `input` with the five markup characters replaced and invisible trouble removed.
///
/// Control characters (except tab and line feed) are illegal in XML 1.0 and would break the feed; bidirectional
/// overrides can make a name read as another. Both are dropped, as a site of names has no use for them.
pub fn escape_into(input: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut rest = 0;
    for (at, c) in input.char_indices() {
        let replacement = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&#39;",
            c if is_unwanted(c) => "",
            _ => continue,
        };
        out.write_all(&input.as_bytes()[rest..at])?;
        out.write_all(replacement.as_bytes())?;
        rest = at + c.len_utf8();
    }
    out.write_all(&input.as_bytes()[rest..])
}

/// Returns `input` escaped for markup, text and quoted attributes alike.
#[must_use]
pub fn escape(input: &str) -> String {
    let mut out = Vec::with_capacity(input.len() + 8);
    escape_into(input, &mut out).expect("writing to memory cannot fail");
    String::from_utf8(out).expect("whole characters in, whole characters out")
}

/// Whether a character has no place on a page: illegal in XML, or able to reorder the text around it.
fn is_unwanted(c: char) -> bool {
    matches!(c,
        '\u{0}'..='\u{8}' | '\u{b}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}')
}

/// Returns the address to link to, or nothing if the text must stay text.
///
/// `https:` with a host, `mailto:` without headers, and bare mail addresses (which get `mailto:`) are links. `http:`, `javascript:`,
/// `data:`, scheme-relative and relative addresses are not: an allow-list needs no list of attacks.
#[must_use]
pub fn web_address(text: &str) -> Option<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > 2048 || text.chars().any(|c| c.is_whitespace() || is_unwanted(c)) {
        return None;
    }
    if let Ok(url) = url::Url::parse(text) {
        return match url.scheme() {
            "https" if url.has_host() && url.username().is_empty() && url.password().is_none() => {
                Some(url.into())
            }
            "mailto" if is_mail(url.path()) && url.query().is_none() => Some(url.into()),
            _ => None,
        };
    }
    is_mail(text).then(|| format!("mailto:{text}"))
}

/// A deliberately narrow mail address: nothing that could carry headers or markup.
fn is_mail(text: &str) -> bool {
    let Some((local, host)) = text.split_once('@') else { return false };
    !local.is_empty()
        && local.chars().all(|c| c.is_ascii_alphanumeric() || "._+-".contains(c))
        && host.contains('.')
        && host.split('.').all(|l| !l.is_empty() && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped_and_invisible_trouble_dropped() {
        assert_eq!(escape(r#"a<b>&"c'"#), "a&lt;b&gt;&amp;&quot;c&#39;");
        assert_eq!(escape("in\u{0}vo\u{202e}ice\u{1b}[0m\n"), "invoice[0m\n");
        assert_eq!(escape("größe → ok"), "größe → ok");
    }

    #[test]
    fn only_https_and_mail_become_links() {
        for (text, link) in [
            ("https://wiki.example.com/a?b=c", Some("https://wiki.example.com/a?b=c")),
            ("mailto:a.b@example.com", Some("mailto:a.b@example.com")),
            ("team@example.com", Some("mailto:team@example.com")),
            ("http://example.com", None),
            ("javascript:alert(1)", None),
            ("JaVaScRiPt:alert(1)", None),
            (" java\tscript:alert(1)", None),
            ("data:text/html,x", None),
            ("vbscript:x", None),
            ("//evil.example", None),
            ("../../etc/passwd", None),
            ("https:", None),
            ("https://user:pw@example.com/", None),
            ("mailto:a@example.com?bcc=x@y.z%0d%0a", None),
            ("mailto:javascript:alert(1)", None),
            ("#commerce-oncall", None),
        ] {
            assert_eq!(web_address(text).as_deref(), link, "{text}");
        }
    }
}
