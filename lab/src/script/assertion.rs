//! `%{ … }%` blocks: the Python subset that scripts use, evaluated natively.
//!
//! Owns:    `assert EXPR [, MESSAGE]`, assignments to own variables, `print(…)`, joined by `;` or line ends.
//!          Expressions: or, and, not, chained comparisons, `| ^ & << >> + - * / // %`, unary `- + ~`,
//!          parentheses, numbers, strings, names, and `abs min max int`.
//! Input:   the text and the variables (socket facts by their kernel names; own ones persist in the map).
//! Differs: a block is judged when it is reached, not at the end of the script, so failures come early.

use std::collections::BTreeMap;

/// What a name can stand for.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A whole number; Python's do not overflow, 128 bits hold every kernel counter's arithmetic.
    Int(i128),
    /// Result of `/`.
    Float(f64),
    /// A string: only for messages.
    Str(String),
}

/// Names and values.
pub type Variables = BTreeMap<String, Value>;

/// Why a block does not pass.
#[derive(Clone, PartialEq, Debug)]
pub enum AssertionError {
    /// An `assert` was false: its text, the values of the names in it, the message.
    Failed {
        /// The expression as written.
        expression: String,
        /// Names in it with their values.
        values: Vec<(String, Value)>,
        /// What stood after the comma.
        message: Option<String>,
    },
    /// Not in the subset, or a name nobody knows.
    Invalid(String),
}

impl core::fmt::Display for Value {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Str(text) => f.write_str(text),
        }
    }
}

impl core::fmt::Display for AssertionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Failed { expression, values, message } => {
                write!(f, "assertion failed: {expression}")?;
                let values: Vec<String> =
                    values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                write!(f, " where {}", values.join(", "))?;
                message.as_ref().map_or(Ok(()), |message| write!(f, " ({message})"))
            }
            Self::Invalid(message) => f.write_str(message),
        }
    }
}

impl core::error::Error for AssertionError {}

/// Runs one block.
///
/// # Errors
/// The first assertion that is false, or the first thing that is not in the subset.
///
/// # Example
/// ```
/// use lastack_lab::script::assertion::{Value, Variables, run};
/// let mut variables = Variables::from([("tcpi_snd_cwnd".to_owned(), Value::Int(10))]);
/// assert!(run("assert 9 < tcpi_snd_cwnd <= 10, 'cwnd'; half = tcpi_snd_cwnd // 2", &mut variables).is_ok());
/// assert!(run("assert half == 4", &mut variables).is_err());
/// ```
pub fn run(text: &str, variables: &mut Variables) -> Result<(), AssertionError> {
    let tokens = tokenize(text)?;
    for statement in tokens.split(|token| *token == Token::End) {
        if !statement.is_empty() {
            run_statement(statement, variables)?;
        }
    }
    Ok(())
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Number(Value),
    Name(String),
    Text(String),
    Op(&'static str),
    End,
}

const OPERATORS: [&str; 25] = [
    "==", "!=", "<=", ">=", "<<", ">>", "//", "<", ">", "+", "-", "*", "/", "%", "&", "|", "^", "~", "(",
    ")", ",", "=", "[", "]", ".",
];

fn invalid<T>(message: impl Into<String>) -> Result<T, AssertionError> {
    Err(AssertionError::Invalid(message.into()))
}

fn tokenize(text: &str) -> Result<Vec<Token>, AssertionError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut depth = 0;
    while let Some(first) = rest.chars().next() {
        let word_len = |s: &str| s.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(s.len());
        let taken = match first {
            '\n' | ';' => {
                if depth == 0 || first == ';' {
                    tokens.push(Token::End);
                }
                1
            }
            '\\' if rest.starts_with("\\\n") => 2,
            '#' => rest.find('\n').unwrap_or(rest.len()),
            c if c.is_whitespace() => c.len_utf8(),
            '"' | '\'' => {
                let Some(len) = rest[1..].find(first) else { return invalid("a string is never closed") };
                tokens.push(Token::Text(rest[1..=len].to_owned()));
                len + 2
            }
            c if c.is_ascii_digit() => {
                let len =
                    rest.find(|c: char| !(c.is_alphanumeric() || c == '.' || c == '_')).unwrap_or(rest.len());
                tokens.push(Token::Number(number(&rest[..len])?));
                len
            }
            c if c.is_alphabetic() || c == '_' => {
                let len = word_len(rest);
                tokens.push(Token::Name(rest[..len].to_owned()));
                len
            }
            other => {
                let Some(op) = OPERATORS.into_iter().find(|op| rest.starts_with(op)) else {
                    return invalid(format!("`{other}` is not understood in an assertion"));
                };
                match op {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth -= 1,
                    _ => {}
                }
                tokens.push(Token::Op(op));
                op.len()
            }
        };
        rest = &rest[taken..];
    }
    Ok(tokens)
}

fn number(text: &str) -> Result<Value, AssertionError> {
    let plain = text.replace('_', "");
    let whole = match plain.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => plain.parse().ok(),
    };
    match (whole, plain.parse::<f64>()) {
        (Some(value), _) => Ok(Value::Int(value)),
        (None, Ok(value)) => Ok(Value::Float(value)),
        (None, Err(_)) => invalid(format!("`{text}` is not a number")),
    }
}

fn run_statement(tokens: &[Token], variables: &mut Variables) -> Result<(), AssertionError> {
    match tokens {
        [Token::Name(word)] if word == "pass" => Ok(()),
        [Token::Name(word), rest @ ..] if word == "assert" => run_assert(rest, variables),
        [Token::Name(name), Token::Op("="), rest @ ..] => {
            let value = whole_expression(rest, variables)?;
            variables.insert(name.clone(), value);
            Ok(())
        }
        // Printing is for people who debug a script; its argument must still make sense.
        [Token::Name(word), Token::Op("("), rest @ .., Token::Op(")")] if word == "print" => {
            let mut parser = Parser { tokens: rest, variables };
            parser.arguments_until_end().map(drop)
        }
        other => invalid(format!("not an assertion: {}", text_of(other))),
    }
}

fn run_assert(tokens: &[Token], variables: &Variables) -> Result<(), AssertionError> {
    let mut parser = Parser { tokens, variables };
    let value = parser.or()?;
    let used = &tokens[..tokens.len() - parser.tokens.len()];
    let message = if parser.take(",") { Some(parser.or()?.to_string()) } else { None };
    if !parser.tokens.is_empty() {
        return invalid(format!("not understood: {}", text_of(parser.tokens)));
    }
    if truth(&value) {
        return Ok(());
    }
    let mut values: Vec<(String, Value)> = Vec::new();
    for token in used {
        if let Token::Name(name) = token
            && let Some(value) = variables.get(name)
            && !values.iter().any(|(known, _)| known == name)
        {
            values.push((name.clone(), value.clone()));
        }
    }
    Err(AssertionError::Failed { expression: text_of(used), values, message })
}

fn whole_expression(tokens: &[Token], variables: &Variables) -> Result<Value, AssertionError> {
    let mut parser = Parser { tokens, variables };
    let value = parser.or()?;
    if parser.tokens.is_empty() {
        Ok(value)
    } else {
        invalid(format!("not understood: {}", text_of(parser.tokens)))
    }
}

fn text_of(tokens: &[Token]) -> String {
    let text = |token: &Token| match token {
        Token::Number(value) => value.to_string(),
        Token::Name(name) => name.clone(),
        Token::Text(text) => format!("'{text}'"),
        Token::Op(op) => (*op).to_owned(),
        Token::End => ";".to_owned(),
    };
    tokens.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Int(value) => *value != 0,
        Value::Float(value) => *value != 0.0,
        Value::Str(text) => !text.is_empty(),
    }
}

struct Parser<'a> {
    tokens: &'a [Token],
    variables: &'a Variables,
}

impl Parser<'_> {
    fn take(&mut self, op: &str) -> bool {
        let seen = matches!(self.tokens.first(), Some(Token::Op(next)) if *next == op);
        if seen {
            self.tokens = &self.tokens[1..];
        }
        seen
    }

    fn take_word(&mut self, word: &str) -> bool {
        let seen = matches!(self.tokens.first(), Some(Token::Name(next)) if next == word);
        if seen {
            self.tokens = &self.tokens[1..];
        }
        seen
    }

    fn or(&mut self) -> Result<Value, AssertionError> {
        let mut value = self.and()?;
        while self.take_word("or") {
            let right = self.and()?;
            value = if truth(&value) { value } else { right };
        }
        Ok(value)
    }

    fn and(&mut self) -> Result<Value, AssertionError> {
        let mut value = self.not()?;
        while self.take_word("and") {
            let right = self.not()?;
            value = if truth(&value) { right } else { value };
        }
        Ok(value)
    }

    fn not(&mut self) -> Result<Value, AssertionError> {
        if self.take_word("not") {
            let value = self.not()?;
            return Ok(Value::Int((!truth(&value)).into()));
        }
        self.comparison()
    }

    /// `a < b <= c` is `a < b and b <= c`.
    fn comparison(&mut self) -> Result<Value, AssertionError> {
        let mut left = self.binary(0)?;
        let mut holds = None;
        while let Some(op) = ["==", "!=", "<=", ">=", "<", ">"].into_iter().find(|op| self.take(op)) {
            let right = self.binary(0)?;
            let step = compare(&left, op, &right)?;
            holds = Some(holds.unwrap_or(true) && step);
            left = right;
        }
        Ok(holds.map_or(left, |holds| Value::Int(holds.into())))
    }

    fn binary(&mut self, level: usize) -> Result<Value, AssertionError> {
        const LEVELS: [&[&str]; 6] =
            [&["|"], &["^"], &["&"], &["<<", ">>"], &["+", "-"], &["*", "//", "/", "%"]];
        let Some(ops) = LEVELS.get(level) else { return self.unary() };
        let mut value = self.binary(level + 1)?;
        while let Some(op) = ops.iter().find(|op| self.take(op)) {
            let right = self.binary(level + 1)?;
            value = arithmetic(&value, op, &right)?;
        }
        Ok(value)
    }

    fn unary(&mut self) -> Result<Value, AssertionError> {
        if self.take("-") {
            let value = self.unary()?;
            return arithmetic(&Value::Int(0), "-", &value);
        }
        if self.take("~") {
            let value = self.unary()?;
            return arithmetic(&Value::Int(-1), "^", &value);
        }
        self.take("+");
        self.atom()
    }

    fn atom(&mut self) -> Result<Value, AssertionError> {
        if self.take("(") {
            let mut value = self.or()?;
            // A tuple: only ever a message.
            while self.take(",") {
                value = Value::Str(format!("{value}, {}", self.or()?));
            }
            return if self.take(")") { Ok(value) } else { invalid("a parenthesis is never closed") };
        }
        let Some((first, rest)) = self.tokens.split_first() else {
            return invalid("an expression is cut short");
        };
        self.tokens = rest;
        match first {
            Token::Number(value) => Ok(value.clone()),
            Token::Text(text) => Ok(Value::Str(text.clone())),
            Token::Name(name) if name == "True" => Ok(Value::Int(1)),
            Token::Name(name) if name == "False" => Ok(Value::Int(0)),
            Token::Name(name) if self.take("(") => self.apply(name),
            Token::Name(name) => match self.variables.get(name) {
                Some(value) => Ok(value.clone()),
                None => invalid(format!("`{name}` is not known here")),
            },
            other => invalid(format!("not an expression: {}", text_of(core::slice::from_ref(other)))),
        }
    }

    fn apply(&mut self, function: &str) -> Result<Value, AssertionError> {
        let mut args = vec![self.or()?];
        while self.take(",") {
            args.push(self.or()?);
        }
        if !self.take(")") {
            return invalid("a call is never closed");
        }
        let less = |a: &Value, b: &Value| compare(a, "<", b);
        let mut chosen = args[0].clone();
        match (function, args.as_slice()) {
            ("int", [Value::Float(value)]) => Ok(Value::Int(*value as i128)),
            ("int", [value @ Value::Int(_)]) => Ok(value.clone()),
            ("abs", [value]) if less(value, &Value::Int(0))? => arithmetic(&Value::Int(0), "-", value),
            ("abs", [value]) => Ok(value.clone()),
            ("min" | "max", _) => {
                for arg in &args[1..] {
                    if less(arg, &chosen)? == (function == "min") {
                        chosen = arg.clone();
                    }
                }
                Ok(chosen)
            }
            _ => invalid(format!("`{function}` is not one of abs, min, max, int")),
        }
    }

    fn arguments_until_end(&mut self) -> Result<Vec<Value>, AssertionError> {
        let mut values = Vec::new();
        while !self.tokens.is_empty() {
            values.push(self.or()?);
            if !self.take(",") && !self.tokens.is_empty() {
                return invalid(format!("not understood: {}", text_of(self.tokens)));
            }
        }
        Ok(values)
    }
}

fn compare(left: &Value, op: &str, right: &Value) -> Result<bool, AssertionError> {
    let order = match (left, right) {
        (Value::Int(a), Value::Int(b)) => a.partial_cmp(b),
        (Value::Str(a), Value::Str(b)) => a.partial_cmp(b),
        _ => float(left)?.partial_cmp(&float(right)?),
    };
    let Some(order) = order else { return Ok(false) };
    Ok(match op {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

fn float(value: &Value) -> Result<f64, AssertionError> {
    match value {
        Value::Int(value) => Ok(*value as f64),
        Value::Float(value) => Ok(*value),
        Value::Str(text) => invalid(format!("'{text}' is not a number")),
    }
}

fn arithmetic(left: &Value, op: &str, right: &Value) -> Result<Value, AssertionError> {
    if let (Value::Int(a), Value::Int(b)) = (left, right) {
        let (a, b) = (*a, *b);
        let shift = u32::try_from(b).ok().filter(|shift| *shift < 127);
        let result = match op {
            "|" => Some(a | b),
            "^" => Some(a ^ b),
            "&" => Some(a & b),
            "<<" => shift.and_then(|shift| a.checked_shl(shift)),
            ">>" => shift.and_then(|shift| a.checked_shr(shift)),
            "+" => a.checked_add(b),
            "-" => a.checked_sub(b),
            "*" => a.checked_mul(b),
            "//" => a.checked_div_euclid(b),
            "%" => a.checked_rem_euclid(b),
            _ if b == 0 => None,
            _ => return Ok(Value::Float(a as f64 / b as f64)),
        };
        return result
            .map_or_else(|| invalid(format!("{a} {op} {b} has no result")), |value| Ok(Value::Int(value)));
    }
    let (a, b) = (float(left)?, float(right)?);
    match op {
        "+" => Ok(Value::Float(a + b)),
        "-" => Ok(Value::Float(a - b)),
        "*" => Ok(Value::Float(a * b)),
        "/" => Ok(Value::Float(a / b)),
        "//" => Ok(Value::Float((a / b).floor())),
        "%" => Ok(Value::Float(a.rem_euclid(b))),
        _ => invalid(format!("`{op}` is for whole numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        [("tcpi_snd_cwnd", 10), ("tcpi_options", 7), ("tcpi_rtt", 100_000), ("TCP_ESTABLISHED", 1)]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), Value::Int(value)))
            .collect()
    }

    #[track_caller]
    fn holds(text: &str) {
        run(text, &mut variables()).unwrap_or_else(|error| panic!("{text}: {error}"));
    }

    #[track_caller]
    fn fails(text: &str) -> AssertionError {
        run(text, &mut variables()).expect_err(text)
    }

    #[test]
    fn true_assertions_pass() {
        holds("assert tcpi_snd_cwnd == 10");
        holds("assert tcpi_snd_cwnd == 10, tcpi_snd_cwnd; assert tcpi_options & 2 != 0 or False");
        holds("assert 99000 <= tcpi_rtt <= 101000\nassert not tcpi_snd_cwnd < 10");
        holds("assert (tcpi_snd_cwnd == 10 and\n  tcpi_rtt > 1), 'two lines'");
        holds(
            "x = tcpi_snd_cwnd * 2 - 1; assert x == 19; assert x // 2 == 9 and x / 2 == 9.5 and x % 4 == 3",
        );
        holds(
            "assert abs(-3) == 3 and max(1, 5, 2) == 5 and min(4, 2) == 2 and int(7 / 2) == 3 and ~0 == -1",
        );
        holds("print('cwnd', tcpi_snd_cwnd)\npass # nothing\nassert 0x10 << 1 == 32");
    }

    #[test]
    fn a_false_assertion_shows_the_values_in_it() {
        let error = fails("assert tcpi_snd_cwnd == 9, 'window'");
        assert_eq!(
            error.to_string(),
            "assertion failed: tcpi_snd_cwnd == 9 where tcpi_snd_cwnd = 10 (window)"
        );
        fails("assert 1 < tcpi_snd_cwnd < 10");
        fails("assert tcpi_options & 8");
        fails("assert tcpi_rtt == 0 or tcpi_snd_cwnd == 11");
    }

    #[test]
    fn a_tuple_is_a_message() {
        let error = fails("assert tcpi_rtt == 1, (tcpi_snd_cwnd, 'and', tcpi_rtt)").to_string();
        assert!(error.ends_with("(10, and, 100000)"), "{error}");
    }

    #[test]
    fn what_is_not_in_the_subset_is_refused_not_ignored() {
        for text in [
            "import os",
            "assert nobody == 1",
            "assert 1 +",
            "def f(): pass",
            "assert 1 / 0",
            "assert (1",
            "$",
        ] {
            assert!(matches!(fails(text), AssertionError::Invalid(_)), "{text}");
        }
    }
}
