//! Inputs that are bad on purpose: what parsers of each kind have stumbled over before.

/// Depth at which recursion without a bound overflows a stack.
const DEEP: usize = 60_000;

/// For any decoder.
pub(crate) fn bytes() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        vec![0],
        vec![0; 64],
        vec![0xff; 64],
        vec![0x80; 64],
        vec![0; 64 * 1024],
        vec![0xff; 64 * 1024],
        vec![0xfd; 4096],
        b"\xfd\xff\xff\xff\xff\xff\xff\xff\x7f".repeat(400),
    ]
}

/// For texts.
pub(crate) fn texts() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "",
        " ",
        "\0",
        "a\0b",
        "\u{feff}",
        "é",
        "aaé-",
        "é-1-é-1-aé",
        "🦀🦀🦀",
        "-",
        "/",
        "@",
        "/@",
        "a/b@",
        ",",
        ",,,,",
        "seq:",
        "seq:-1",
        "seq:18446744073709551616",
        "v4294967296",
        "prev:0",
        "ago",
        "99999999999999999999w ago",
        "18446744073709551615s ago",
        "sha256:",
        "+1",
        "0x10",
        "1e400",
        "NaN",
        "٣s",
        "５m",
        "1_000",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    for part in ["a", ",", "/", "(", "!", "a=b,", "region:eu,", "x001/", "1s", "\n", "é", "\u{2014} "] {
        all.push(part.as_bytes().repeat(64 * 1024 / part.len()));
    }
    // Not UTF-8: a stray continuation, an overlong slash, half a surrogate pair, a beginning without its end.
    all.extend([&b"\x80"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f\xa6"].map(<[u8]>::to_vec));
    all
}

/// For JSON.
pub(crate) fn json() -> Vec<Vec<u8>> {
    let mut all = texts();
    all.extend(
        [
            "null",
            "{}",
            "[]",
            "\"\"",
            "0",
            "-0",
            "1e999",
            "-1e999",
            "1e-999",
            "123456789012345678901234567890",
            "18446744073709551616",
            "0.1e1",
            "{\"\":{}}",
            "{\"a\":1,\"a\":2}",
            "\"\\ud800\"",
            "\"\\u0000\"",
            "{\"a\":",
            "[1,",
            "{} {}",
            "{}x",
            "\u{feff}{}",
            "[1e5]",
            "{\"body\":\"\",\"signature\":\"\"}",
            "{\"body\":\"{}\",\"signature\":\"00\"}",
        ]
        .iter()
        .map(|text| text.as_bytes().to_vec()),
    );
    all.push(b"[".repeat(DEEP));
    all.push([b"[".repeat(120), b"]".repeat(120)].concat());
    all.push(b"{\"a\":".repeat(DEEP));
    all.push([b"{\"a\":".repeat(100), b"1".to_vec(), b"}".repeat(100)].concat());
    all.push([&b"[0"[..], &b",0".repeat(30_000), b"]"].concat());
    all.push([&b"[{}"[..], &b",{}".repeat(20_000), b"]"].concat());
    all.push([&b"\""[..], &b"\\u00e9".repeat(10_000), b"\""].concat());
    all
}

/// For YAML.
pub(crate) fn yaml() -> Vec<Vec<u8>> {
    let mut all = json();
    // Nine anchors, each nine times the one before: a billion laughs.
    let laughs = (1..10).map(|level| {
        let before = format!("*a{}", level - 1);
        format!("a{level}: &a{level} [{}]", vec![before; 9].join(","))
    });
    let laughs: Vec<_> =
        std::iter::once("a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]".to_owned()).chain(laughs).collect();
    all.push(laughs.join("\n").into_bytes());
    // One long text, named many times.
    let quadratic = format!("a: &a {}\nb: [{}]\n", "x".repeat(30_000), vec!["*a"; 8000].join(","));
    all.push(quadratic.into_bytes());
    let merged = format!("a: &a {{x: 1}}\n{}", "b:\n  <<: *a\n".repeat(500));
    all.push(merged.into_bytes());
    all.push(b"a: &a [*a]\n".to_vec());
    all.push(b"&a a: *a\n".to_vec());
    all.push(b"a: &a {b: *a}\n".to_vec());
    all.push(b"- ".repeat(20_000));
    let steps: Vec<_> = (0..800).map(|depth| format!("{}a:", " ".repeat(depth))).collect();
    all.push(steps.join("\n").into_bytes());
    all.push(b"? ".repeat(20_000));
    all.push(b"&a ".repeat(20_000));
    all.push(b"!!str ".repeat(10_000));
    all.push(b"--- a\n".repeat(10_000));
    all.push(b"a: |\n".repeat(1000));
    all.push(b"\"\\x".repeat(10_000));
    for text in [
        "%YAML 9.9\n---\na: 1\n",
        "%TAG ! tag:x,2000:\n---\n!a b\n",
        "a: 1\na: 2\n",
        "? [a, b]\n: 1\n",
        "? {a: b}\n: 1\n",
        "app: !!binary AAAA\n",
        "app: !!python/object:os.system {}\n",
        "a:\tb\n",
        "\ta: b\n",
        "a: 'b\n",
        "a: \"b\n",
        "app: 0o17\n",
        "app: 0x1F\n",
        "app: 1_000\n",
        "app: .inf\n",
        "app: .nan\n",
        "app: ~\n",
        "app: yes\n",
        "app: 2026-01-31\n",
        "app: 1e400\n",
        "<<: {app: x}\n",
        "app: {<<: [{a: 1}, {b: 2}]}\n",
        "a: b\r\n",
        "a: \u{85}b\n",
        "\u{2028}a: b\n",
        "a: \u{7}b\n",
        "--- |1\n a\n",
        "a: >9\n b\n",
        "- - - - a\n",
        "{a: b, c}\n",
        "[a, b\n",
        "a: {b\n",
        "a: *missing\n",
        "&a\n",
        "*a\n",
        "!\n",
        "!<\n",
        "!!\n",
        "%\n",
        "...\n",
        "---\n---\n",
        "@\n",
        "`\n",
    ] {
        all.push(text.as_bytes().to_vec());
    }
    all
}
