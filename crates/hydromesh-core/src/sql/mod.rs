//! SQL as the mesh allows it: one SELECT or WITH over declared inputs, and its canonical form.

mod walk;

use std::collections::BTreeSet;

use sqlparser::ast::Statement;
use sqlparser::dialect::GenericDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use crate::diag::{Code, Diagnostic, Spot, codes, did_you_mean};
use crate::model::SqlText;

/// Version of [`canonical`]; forms of different versions are never compared.
pub const CANONICAL_VERSION: u32 = 1;

/// Longer queries are generated, and reading them must stay cheap.
const MAX_BYTES: usize = 256 * 1024;
/// Chains of operators nest one level each; beyond this a query exhausts the stack of whoever walks it.
const MAX_OPERATORS: usize = 2_000;
/// Parts of the plan that a query may become, and a name may stand for. A WITH name that is read twice doubles what it names,
/// so that a page of SQL can ask for more than any planner will ever finish.
const MAX_WEIGHT: u64 = 2_000;

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqlFault {
    /// The code.
    pub code: Code,
    /// Line in the text, 1-based; 0 for the text as a whole.
    pub line: u32,
    /// Column in that line, 1-based.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// A better help than the code's, if there is one.
    pub help: Option<String>,
}

impl SqlFault {
    fn new(code: Code, at: Spot, message: impl Into<String>) -> Self {
        Self { code, line: at.line, column: at.column, message: message.into(), help: None }
    }
}

/// Returns the input tables that a query reads, once it is known to be one harmless query over `inputs`.
///
/// # Errors
/// Every fault that could be found; a text that cannot be parsed has one.
pub fn guard<'a>(
    text: &str,
    inputs: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeSet<String>, Vec<SqlFault>> {
    let inputs: Vec<&str> = inputs.into_iter().collect();
    let tokens = tokens(text).map_err(|fault| vec![fault])?;
    outline(text, &tokens).map_err(|fault| vec![fault])?;
    let statements = Parser::new(&GenericDialect {})
        .with_tokens_with_locations(tokens)
        .parse_statements()
        .map_err(|error| vec![parse_fault(&error)])?;
    let [Statement::Query(query)] = statements.as_slice() else {
        return Err(vec![SqlFault::new(codes::SQL_NOT_A_QUERY, Spot::FILE, "the statement is not a query")]);
    };
    let mut walk = walk::Walk::default();
    walk.query(query);
    let mut faults = walk.faults;
    if walk.weight > MAX_WEIGHT {
        let message = format!(
            "with every WITH name replaced by what it names the query has {} parts, the limit is {MAX_WEIGHT}",
            if walk.weight == u64::MAX { "countless".to_owned() } else { walk.weight.to_string() }
        );
        faults.push(SqlFault::new(codes::SQL_UNSUPPORTED, Spot::FILE, message));
    }
    for fault in &mut faults {
        // A table named by a string has no place of its own in the tree.
        let quoted = fault.message.split('`').nth(1).filter(|_| fault.line == 0);
        if let Some((line, column)) = quoted.and_then(|name| find(text, name)) {
            (fault.line, fault.column) = (line, column);
        }
    }
    let mut tables = BTreeSet::new();
    for (table, at) in walk.tables {
        if inputs.contains(&table.as_str()) {
            tables.insert(table);
            continue;
        }
        let readable = if inputs.is_empty() { "there is none".to_owned() } else { inputs.join(", ") };
        let mut fault = SqlFault::new(
            codes::SQL_UNKNOWN_TABLE,
            at,
            format!("`{table}` is not an input that this query may read ({readable})"),
        );
        fault.help =
            did_you_mean(&table, inputs.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        faults.push(fault);
    }
    if faults.is_empty() { Ok(tables) } else { Err(faults) }
}

/// Returns the faults of a query of the mesh, placed in its file.
#[must_use]
pub fn diagnose<'a>(sql: &SqlText, inputs: impl IntoIterator<Item = &'a str>) -> Vec<Diagnostic> {
    let faults = guard(&sql.text, inputs).err().unwrap_or_default();
    faults
        .into_iter()
        .map(|fault| {
            let at = place(sql, fault.line, fault.column);
            let diagnostic = Diagnostic::new(fault.code, sql.file.clone(), at, fault.message);
            match fault.help {
                Some(help) => diagnostic.help(help),
                None => diagnostic,
            }
        })
        .collect()
}

/// Returns the faults of a quality rule's query, which reads its own object and nothing else.
///
/// The object and the column may be named by the placeholders of the contract standard, with or without `$`.
#[must_use]
pub fn guard_measure(text: &str, object: &str) -> Vec<SqlFault> {
    let mut query = text.to_owned();
    for (names, stands_for) in
        [(["object", "table", "model"], object), (["property", "column", "field"], "column")]
    {
        for name in names {
            let quoted = format!("\"{stands_for}\"");
            query = query.replace(&format!("${{{name}}}"), &quoted).replace(&format!("{{{name}}}"), &quoted);
        }
    }
    guard(&query, [object]).err().unwrap_or_default()
}

/// Returns the place in the file of a place in the query's text.
#[must_use]
pub fn place(sql: &SqlText, line: u32, column: u32) -> Spot {
    if line == 0 {
        return Spot::new(sql.line, 1);
    }
    // Inline SQL starts somewhere in its line; only a file of its own has true columns.
    let column = if sql.line > 1 { 0 } else { column };
    Spot::new(sql.line.saturating_add(line - 1), column)
}

/// Returns the query independent of formatting, comments, letter case of keywords and unquoted names, and a closing
/// semicolon. Two queries with equal forms mean the same; the reverse is not promised.
#[must_use]
pub fn canonical(text: &str) -> String {
    // Quotes inside quotes stay as written; resolved, `'a'' || ''b'` would look like two texts.
    let tokens = Tokenizer::new(&GenericDialect {}, text).with_unescape(false).tokenize();
    let Ok(tokens) = tokens else { return text.trim().to_owned() };
    let mut parts: Vec<String> = Vec::new();
    for token in &tokens {
        match token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::Word(Word { value, quote_style: None, .. }) => parts.push(value.to_lowercase()),
            other => parts.push(other.to_string()),
        }
    }
    while parts.last().is_some_and(|part| part == ";") {
        parts.pop();
    }
    parts.join(" ")
}

fn tokens(text: &str) -> Result<Vec<TokenWithSpan>, SqlFault> {
    if text.len() > MAX_BYTES {
        let message = format!("the query has {} bytes, the limit is {MAX_BYTES}", text.len());
        return Err(SqlFault::new(codes::SQL_UNSUPPORTED, Spot::FILE, message));
    }
    Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(|error| {
        SqlFault::new(codes::SQL_SYNTAX, location(error.location.line, error.location.column), error.message)
    })
}

/// The first place of a word in a text.
fn find(text: &str, word: &str) -> Option<(u32, u32)> {
    let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    text.lines().enumerate().find_map(|(index, line)| {
        line.find(word).map(|position| (small(index + 1), small(line[..position].chars().count() + 1)))
    })
}

fn location(line: u64, column: u64) -> Spot {
    let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Spot::new(small(line), small(column))
}

/// Judges the text by its words alone, so that a refused statement is named even where its own syntax is beyond the
/// parser.
fn outline(text: &str, tokens: &[TokenWithSpan]) -> Result<(), SqlFault> {
    let mut words = tokens.iter().filter(|it| !matches!(it.token, Token::Whitespace(_) | Token::EOF));
    let at = |token: &TokenWithSpan| location(token.span.start.line, token.span.start.column);
    let Some(first) = words.clone().find(|it| it.token != Token::SemiColon) else {
        let message =
            if text.trim().is_empty() { "the SQL is empty" } else { "the SQL holds nothing but comments" };
        return Err(SqlFault::new(codes::SQL_EMPTY, Spot::FILE, message));
    };
    if let Token::Word(Word { keyword, value, quote_style: None }) = &first.token {
        match keyword {
            Keyword::SELECT | Keyword::WITH => {}
            Keyword::COPY => return Err(SqlFault::new(codes::SQL_COPY, at(first), "COPY is refused")),
            _ => {
                let message =
                    format!("the statement starts with {}, not with SELECT or WITH", value.to_uppercase());
                return Err(SqlFault::new(codes::SQL_NOT_A_QUERY, at(first), message));
            }
        }
    } else if first.token != Token::LParen {
        let message = format!("the statement starts with `{}`, not with SELECT or WITH", first.token);
        return Err(SqlFault::new(codes::SQL_SYNTAX, at(first), message));
    }
    let mut ended = false;
    for token in words.by_ref() {
        if token.token == Token::SemiColon {
            ended = true;
        } else if ended {
            return Err(SqlFault::new(
                codes::SQL_SECOND_STATEMENT,
                at(token),
                "a second statement starts here",
            ));
        }
    }
    let operators = tokens.iter().filter(|it| is_operator(&it.token)).count();
    if operators > MAX_OPERATORS {
        let message = format!("the query has {operators} operators, the limit is {MAX_OPERATORS}");
        return Err(SqlFault::new(codes::SQL_UNSUPPORTED, Spot::FILE, message));
    }
    Ok(())
}

/// A token that may nest the tree by one level without a bracket.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            use Keyword::{AND, BETWEEN, COLLATE, EXCEPT, ILIKE, IN, INTERSECT, IS, LIKE, NOT, OR, UNION};
            word.quote_style.is_none()
                && matches!(
                    word.keyword,
                    AND | OR | NOT | IS | IN | LIKE | ILIKE | BETWEEN | COLLATE | UNION | EXCEPT | INTERSECT
                )
        }
        Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab | _)
        | Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::SemiColon
        | Token::EOF => false,
        _ => true,
    }
}

fn parse_fault(error: &ParserError) -> SqlFault {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "the query is nested too deeply".to_owned(),
    };
    // The parser appends its place to the message: ` at Line: 1, Column: 8`.
    let (message, at) = match text.rsplit_once(" at Line: ") {
        Some((message, place)) => {
            let mut numbers =
                place.split(", Column: ").map(|number| number.trim().parse::<u64>().unwrap_or(0));
            (message.to_owned(), location(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)))
        }
        None => (text, Spot::FILE),
    };
    SqlFault::new(codes::SQL_SYNTAX, at, message)
}

#[cfg(test)]
mod tests;
