package schemas

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// fastJSON reads the records that producers mostly write in one pass, without a tree: a flat object, each field once, none absent, texts
// without escapes. It takes nothing that jsonDecoder would refuse or read differently; whatever else there is, it leaves to it, and so it
// never says what is wrong.
type fastJSON struct {
	fields []fastField
	byName map[string]int
	all    uint64 // a bit for each field
}

type fastField struct {
	name     []byte // in quotes
	lead     []byte // the same and a colon
	kind     Kind
	nullable bool
	plain    bool     // a text, any and never null
	narrow   bool     // 32 bits
	symbols  []string // of an enum
	checked  bool     // has a declared range
	limits   limits
}

// newFastJSON is nil for a schema that is not of this kind.
func newFastJSON(s *Schema) *fastJSON {
	if len(s.Columns) == 0 || len(s.Columns) > 64 {
		return nil
	}
	f := &fastJSON{byName: map[string]int{}, all: math.MaxUint64 >> (64 - len(s.Columns))}
	for i, c := range s.Columns {
		wire := s.slots[i].node.wire
		if len(s.root.fields) != len(s.Columns) || s.root.fields[i].name != c.Name || c.Kind == Bytes || wire == wireFloat {
			return nil // nested, or not read as it is written
		}
		for _, b := range []byte(c.Name) {
			if b == '"' || b == '\\' || b < ' ' || b >= utf8.RuneSelf {
				return nil
			}
		}
		l := limitsOf(c)
		f.fields = append(f.fields, fastField{name: strconv.AppendQuote(nil, c.Name), lead: append(strconv.AppendQuote(nil, c.Name), ':'), kind: c.Kind, nullable: c.Nullable,
			plain:  c.Kind == String && !c.Nullable && c.Symbols == nil && !l.declared,
			narrow: wire == wireInt, symbols: c.Symbols, checked: l.declared, limits: l})
		f.byName[c.Name] = i
	}
	return f
}

// decode reads record into row, which is as wide as the schema; text is the record's bytes, of which texts are parts. It is false where
// jsonDecoder must look.
func (f *fastJSON) decode(record []byte, text string, row Row) bool {
	i := space(record, 0)
	if i >= len(record) || record[i] != '{' {
		return false
	}
	i++
	var seen uint64
	for next := 0; ; next++ {
		i = space(record, i)
		at := next
		if next < len(f.fields) && bytes.HasPrefix(record[i:], f.fields[next].lead) { // how records are mostly written
			i += len(f.fields[next].lead)
		} else if at, i = f.field(record, i); at < 0 {
			return false
		}
		if seen&(1<<at) != 0 {
			return false
		}
		seen |= 1 << at
		next = at
		i = space(record, i)
		var ok bool
		if f.fields[at].plain { // most of them
			if i >= len(record) {
				return false
			}
			v := &row[at]
			v.kind, v.bits = String, 0
			v.text, i, ok = plainText(record, text, i)
			if !ok {
				return false
			}
		} else if row[at], i, ok = f.fields[at].value(record, text, i); !ok {
			return false
		}
		i = space(record, i)
		if i >= len(record) {
			return false
		}
		if record[i] == ',' {
			i++
			continue
		}
		return record[i] == '}' && seen == f.all && space(record, i+1) == len(record)
	}
}

// field is the field whose name is at i, and where its colon ends; -1 when it is none.
func (f *fastJSON) field(b []byte, i int) (at, end int) {
	if i >= len(b) || b[i] != '"' {
		return -1, i
	}
	i++
	length := bytes.IndexByte(b[i:], '"')
	if length < 0 {
		return -1, i
	}
	at, ok := f.byName[string(b[i:i+length])] // a name with an escape is none of them
	if !ok {
		return -1, i
	}
	i = space(b, i+length+1)
	if i >= len(b) || b[i] != ':' {
		return -1, i
	}
	return at, i + 1
}

// space is where the white space at i ends.
func space(b []byte, i int) int {
	if i < len(b) && b[i] <= ' ' {
		return spaces(b, i)
	}
	return i
}

func spaces(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func (f *fastField) value(b []byte, text string, i int) (v Value, end int, ok bool) {
	if i >= len(b) {
		return v, i, false
	}
	if b[i] == 'n' {
		return v, i + 4, f.nullable && bytes.HasPrefix(b[i:], []byte("null"))
	}
	switch f.kind {
	case String:
		var s string
		s, end, ok = plainText(b, text, i)
		if ok && f.symbols != nil {
			ok = slices.Contains(f.symbols, s)
		}
		return StringValue(s), end, ok
	case Int:
		var n int64
		n, end, ok = plainInt(b, i)
		v, ok = IntValue(n), ok && (!f.narrow || int64(int32(n)) == n)
	case Float:
		var x float64
		x, end, ok = plainFloat(b, text, i)
		v = FloatValue(x)
	case Time:
		var ms int64
		ms, end, ok = plainTime(b, text, i)
		v = TimeValue(ms)
	case Bool:
		switch {
		case bytes.HasPrefix(b[i:], []byte("true")):
			return BoolValue(true), i + 4, true
		case bytes.HasPrefix(b[i:], []byte("false")):
			return BoolValue(false), i + 5, true
		}
	}
	if ok && (f.checked || f.kind == Time) {
		ok = f.limits.check("", v) == nil
	}
	return v, end, ok
}

// plainText reads a text without escapes.
func plainText(b []byte, text string, i int) (s string, end int, ok bool) {
	if b[i] != '"' {
		return "", i, false
	}
	i++
	from := i
	for i+8 <= len(b) {
		n := plainBytes(binary.LittleEndian.Uint64(b[i:]))
		if i += n; n < 8 {
			break
		}
	}
	for ascii := true; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			s = text[from:i]
			return s, i + 1, ascii || utf8.ValidString(s)
		case c == '\\' || c < ' ':
			return "", i, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", i, false
}

// plainBytes is how many of the eight bytes of a word, from the lowest, stand for themselves: ASCII, neither a quote, a backslash nor a control
// character (for what is done to all bytes at once see H. S. Warren, "Hacker's Delight", 6-1).
func plainBytes(w uint64) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	quotes, backslashes := w^ones*'"', w^ones*'\\'
	other := (quotes-ones)&^quotes | (backslashes-ones)&^backslashes | (w-ones*' ')&^w | w
	return bits.TrailingZeros64(other&highs) / 8
}

// digitsOf reads as many digits as fit 18 places, from a number that has no leading zero.
func digitsOf(b []byte, i int) (n int64, end int, ok bool) {
	from := i
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		if i-from == 18 {
			return 0, i, false
		}
		n = n*10 + int64(b[i]-'0')
		i++
	}
	return n, i, i > from && (b[from] != '0' || i == from+1)
}

func plainInt(b []byte, i int) (n int64, end int, ok bool) {
	negative := b[i] == '-'
	if negative {
		i++
	}
	n, end, ok = digitsOf(b, i)
	if end < len(b) && (b[end] == '.' || b[end] == 'e' || b[end] == 'E') {
		return 0, end, false
	}
	if negative {
		n = -n
	}
	return n, end, ok
}

// powersOfTen are those that a float64 holds exactly.
var powersOfTen = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// plainFloat reads a number without an exponent. Digits and a power of ten that a float64 holds exactly give the nearest float64 in one
// division (W. D. Clinger, "How to read floating point numbers accurately", 1990); strconv reads the rest.
func plainFloat(b []byte, text string, i int) (x float64, end int, ok bool) {
	from := i
	negative := b[i] == '-'
	if negative {
		i++
	}
	n, end, ok := digitsOf(b, i)
	if !ok {
		return 0, end, false
	}
	places := 0
	if end < len(b) && b[end] == '.' {
		first := end + 1
		end = first
		for end < len(b) && b[end] >= '0' && b[end] <= '9' {
			if end-from > 18 {
				return 0, end, false
			}
			n = n*10 + int64(b[end]-'0')
			end++
		}
		if places = end - first; places == 0 {
			return 0, end, false
		}
	}
	if end < len(b) && (b[end] == 'e' || b[end] == 'E') {
		return 0, end, false
	}
	if bits.Len64(uint64(n)) > 53 {
		x, err := strconv.ParseFloat(text[from:end], 64)
		return x, end, err == nil
	}
	x = float64(n) / powersOfTen[places]
	if negative {
		x = -x
	}
	return x, end, true
}

func plainTime(b []byte, text string, i int) (ms int64, end int, ok bool) {
	if b[i] != '"' {
		return plainInt(b, i)
	}
	s, end, ok := plainText(b, text, i)
	if !ok {
		return 0, end, false
	}
	if ms, ok = plainUTC(s); ok {
		return ms, end, true
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UnixMilli(), end, err == nil
}

// plainUTC reads RFC 3339 of whole seconds in UTC, 2001-02-03T04:05:06Z.
func plainUTC(s string) (ms int64, ok bool) {
	if len(s) != 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' || s[19] != 'Z' {
		return 0, false
	}
	var wrong bool
	two := func(i int) int {
		a, b := s[i]-'0', s[i+1]-'0'
		wrong = wrong || a > 9 || b > 9
		return int(a)*10 + int(b)
	}
	year, month, day := two(0)*100+two(2), two(5), two(8)
	hour, minute, second := two(11), two(14), two(17)
	if wrong || year == 0 || month < 1 || month > 12 || day < 1 || day > 28 && day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	// Days since 1970 of the proleptic Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
	y, m := year, month
	if m <= 2 {
		y, m = y-1, m+12
	}
	era := y / 400
	yearOfEra := y - era*400
	dayOfYear := (153*(m-3)+2)/5 + day - 1
	days := era*146097 + yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear - 719468
	return (int64(days)*86400 + int64(hour*3600+minute*60+second)) * 1000, true
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
