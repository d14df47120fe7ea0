//! Bytes as text: base64 with the usual alphabet and padding (RFC 4648), strict when read.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Text of bytes.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) & 63;
            let there = place <= chunk.len();
            text.push(if there { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

/// Bytes of text; `None` if it is anything else than what [`encode`] makes.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (number, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || padding > 0 && number + 1 < groups.len() {
            return None;
        }
        let mut bits = 0_u32;
        for byte in &group[..4 - padding] {
            let six = ALPHABET.iter().position(|letter| letter == byte)?;
            bits = bits << 6 | u32::try_from(six).ok()?;
        }
        let [_, three @ ..] = (bits << (6 * padding)).to_be_bytes();
        if three[3 - padding..].iter().any(|byte| *byte != 0) {
            return None; // bits that belong to no byte
        }
        bytes.extend_from_slice(&three[..3 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        for from in 0..4 {
            assert_eq!(decode(&encode(&all[from..])).as_deref(), Some(&all[from..]));
        }
        for bad in
            ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "====", "Z===", "Zg==Zg==", "Zm 9", "Zm9ü", "Zm-_"]
        {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
