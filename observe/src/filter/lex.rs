//! Words of a filter: split at white space, parentheses and operators, wherever the shell left them.

/// One word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Token {
    Open,
    Close,
    Not,
    And,
    Or,
    Cmp(super::Cmp),
    Word(String),
}

/// Splits the arguments. `!` before `=` is an operator, alone it is "not".
pub(super) fn tokens<S: AsRef<str>>(arguments: &[S]) -> Vec<Token> {
    use super::Cmp;
    let mut out = Vec::new();
    for argument in arguments {
        for piece in argument.as_ref().split_whitespace() {
            let mut rest = piece;
            while !rest.is_empty() {
                let (token, length) = match rest.as_bytes() {
                    [b'(', ..] => (Token::Open, 1),
                    [b')', ..] => (Token::Close, 1),
                    [b'!', b'=', ..] => (Token::Cmp(Cmp::Ne), 2),
                    [b'>', b'=', ..] => (Token::Cmp(Cmp::Ge), 2),
                    [b'<', b'=', ..] => (Token::Cmp(Cmp::Le), 2),
                    [b'=', b'=', ..] => (Token::Cmp(Cmp::Eq), 2),
                    [b'=', ..] => (Token::Cmp(Cmp::Eq), 1),
                    [b'>', ..] => (Token::Cmp(Cmp::Gt), 1),
                    [b'<', ..] => (Token::Cmp(Cmp::Lt), 1),
                    [b'!', ..] => (Token::Not, 1),
                    [b'&', b'&', ..] => (Token::And, 2),
                    [b'&', ..] => (Token::And, 1),
                    [b'|', b'|', ..] => (Token::Or, 2),
                    [b'|', ..] => (Token::Or, 1),
                    _ => {
                        let end = rest.find(['(', ')', '!', '=', '<', '>', '&', '|']).unwrap_or(rest.len());
                        (word(&rest[..end]), end)
                    }
                };
                out.push(token);
                rest = &rest[length..];
            }
        }
    }
    out
}

fn word(text: &str) -> Token {
    use super::Cmp;
    match text {
        "and" => Token::And,
        "or" => Token::Or,
        "not" => Token::Not,
        "eq" => Token::Cmp(Cmp::Eq),
        "ne" | "neq" => Token::Cmp(Cmp::Ne),
        "ge" | "geq" => Token::Cmp(Cmp::Ge),
        "le" | "leq" => Token::Cmp(Cmp::Le),
        "gt" => Token::Cmp(Cmp::Gt),
        "lt" => Token::Cmp(Cmp::Lt),
        _ => Token::Word(text.to_owned()),
    }
}
