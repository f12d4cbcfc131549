# Flatten JSON: one "path/to/value<TAB>text" line for each scalar. Strings stay on one line:
# \n at their end goes, \" and \\ lose their backslash, other escapes are left as they are.
{ text = text $0 "\n" }

END { value("") }

function take(pattern,    token) {
    sub(/^[ \t\r\n]+/, "", text)
    if (!match(text, "^(" pattern ")")) { exit 1 }
    token = substr(text, 1, RLENGTH)
    text = substr(text, RLENGTH + 1)
    return token
}

function peek() {
    sub(/^[ \t\r\n]+/, "", text)
    return substr(text, 1, 1)
}

function string(    token) {
    token = take("\"([^\"\\\\]|\\\\.)*\"")
    token = substr(token, 2, length(token) - 2)
    sub(/(\\n)+$/, "", token)
    gsub(/\\"/, "\"", token)
    gsub(/\\\\/, "\\", token)
    return token
}

function inside(path) {
    return path == "" ? "" : path "/"
}

function value(path,    first, i) {
    first = peek()
    if (first == "{") { members(path) }
    else if (first == "[") { items(path) }
    else if (first == "\"") { print path "\t" string() }
    else { print path "\t" take("[-+.0-9A-Za-z]+") }
}

function members(path,    key) {
    take("[{]")
    while (peek() != "}") {
        key = string()
        take(":")
        value(inside(path) key)
        if (peek() == ",") { take(",") }
    }
    take("}")
}

function items(path,    i) {
    take("\\[")
    while (peek() != "]") {
        value(inside(path) i++ + 0)
        if (peek() == ",") { take(",") }
    }
    take("\\]")
}
