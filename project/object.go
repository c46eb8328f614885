package project

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/schemas"
)

// object is a mapping that is read key by key. Every method that finds a fault records it and gives back the default, so that reading
// goes on to the next.
type object struct {
	l     *loader
	value value
	what  string // for messages: "source departures"
}

// object takes a mapping with no keys but these.
func (l *loader) object(v value, what string, keys ...string) object {
	o := object{l: l, value: v, what: what}
	switch v.shape {
	case mapping:
	case absent, null, broken:
		o.value.partial = v.shape == broken
		return o
	default:
		l.faultAt(v, "", "%s must be a mapping, not %s", what, shapeNames[v.shape])
		o.value = value{line: v.line, col: v.col, partial: true}
		return o
	}
	for _, e := range v.entries {
		if !slices.Contains(keys, e.key) {
			l.fault(e.line, e.col, didYouMean(e.key, keys), "%s has no setting %q", what, e.key)
		}
	}
	return o
}

// didYouMean is the hint for a misspelt name: the nearest right one, else all when they are few.
func didYouMean(name string, right []string) string {
	if near := schemas.Nearest(name, right); near != "" {
		return "did you mean " + strconv.Quote(near) + "?"
	}
	if len(right) == 0 || len(right) > 12 {
		return ""
	}
	return "one of " + strings.Join(right, ", ")
}

// get is the value of a key. One that is absent has the place of the mapping, for messages.
func (o object) get(key string) value {
	for _, e := range o.value.entries {
		if e.key == key {
			v := e.value
			if v.shape == null {
				v.line, v.col = e.line, e.col
			}
			return v
		}
	}
	return value{line: o.value.line, col: o.value.col}
}

func (o object) has(key string) bool { return o.get(key).shape > null }

// needs records that a required key is absent; it is false when it is there.
func (o object) needs(key, hint string) bool {
	v := o.get(key)
	if v.shape > null {
		return false
	}
	if !o.value.partial {
		o.l.faultAt(v, hint, "%s needs %s", o.what, key)
	}
	return true
}

// text is a required piece of text.
func (o object) text(key string) string {
	if o.needs(key, "") {
		return ""
	}
	return o.textOr(key, "")
}

func (o object) textOr(key, fallback string) string {
	v := o.get(key)
	switch {
	case v.shape == absent || v.shape == broken:
		return fallback
	case v.shape != text:
		o.l.faultAt(v, "", "%s: %s must be text, not %s", o.what, key, shapeNames[v.shape])
		return fallback
	case strings.TrimSpace(v.text) == "":
		o.l.faultAt(v, "", "%s: %s is empty", o.what, key)
		return fallback
	}
	return v.text
}

// choice is one of a few words; the first is the default.
func (o object) choice(key string, words ...string) string {
	word := o.textOr(key, words[0])
	if !slices.Contains(words, word) {
		o.l.faultAt(o.get(key), didYouMean(word, words), "%s: %s cannot be %q", o.what, key, word)
		return words[0]
	}
	return word
}

// texts is a list of texts; a single text is a list of one. nil when absent.
func (o object) texts(key string) []value {
	v := o.get(key)
	switch v.shape {
	case absent, broken:
		return nil
	case text:
		return []value{v}
	case list:
		var out []value
		for _, item := range v.items {
			if item.shape != text {
				o.l.faultAt(item, "", "%s: %s must be a list of texts, not of %s", o.what, key, shapeNames[item.shape])
				continue
			}
			out = append(out, item)
		}
		return out
	default:
		o.l.faultAt(v, "", "%s: %s must be a list, not %s", o.what, key, shapeNames[v.shape])
		return nil
	}
}

// duration is a span of time of at least least.
func (o object) duration(key string, fallback, least time.Duration) time.Duration {
	v := o.get(key)
	if v.shape == absent || v.shape == broken {
		return fallback
	}
	if v.shape != text {
		o.l.faultAt(v, "write it with its unit, like 30ms, 30m, 24h or 7d", "%s: %s must be a duration, not %s", o.what, key, shapeNames[v.shape])
		return fallback
	}
	d, err := duration.Parse(v.text)
	if err != nil {
		o.l.faultAt(v, "", "%s: %s: %v", o.what, key, err)
		return fallback
	}
	if d < least {
		o.l.faultAt(v, "", "%s: %s is %s, but must be at least %s", o.what, key, v.text, duration.Format(least))
		return fallback
	}
	return d
}

// flag is true or false, false when absent.
func (o object) flag(key string) bool {
	v := o.get(key)
	if v.shape == absent || v.shape == broken {
		return false
	}
	if v.shape != boolean {
		o.l.faultAt(v, "write true or false", "%s: %s must be a boolean, not %s", o.what, key, shapeNames[v.shape])
		return false
	}
	return v.text == "true"
}

// integer is a whole number from least to most.
func (o object) integer(key string, fallback, least, most int64) int64 {
	v := o.get(key)
	if v.shape == absent || v.shape == broken {
		return fallback
	}
	i, err := strconv.ParseInt(v.text, 10, 64)
	if v.shape != number || err != nil {
		o.l.faultAt(v, "", "%s: %s must be a whole number", o.what, key)
		return fallback
	}
	if i < least || i > most {
		o.l.faultAt(v, "", "%s: %s is %d, but must be from %d to %d", o.what, key, i, least, most)
		return fallback
	}
	return i
}

// float is a finite number from least to most.
func (o object) float(key string, fallback, least, most float64) float64 {
	v := o.get(key)
	if v.shape == absent || v.shape == broken {
		return fallback
	}
	f, err := strconv.ParseFloat(v.text, 64)
	if v.shape != number || err != nil || math.IsInf(f, 0) || math.IsNaN(f) {
		o.l.faultAt(v, "", "%s: %s must be a number", o.what, key)
		return fallback
	}
	if f < least || f > most {
		o.l.faultAt(v, "", "%s: %s is %v, but must be from %v to %v", o.what, key, f, least, most)
		return fallback
	}
	return f
}

// percentage is a share, 0 to 1, that is written like 10%; 0 when it is absent.
func (o object) percentage(key string) float64 {
	v := o.get(key)
	if v.shape == absent || v.shape == broken {
		return 0
	}
	number, ok := strings.CutSuffix(v.text, "%")
	percent, err := strconv.ParseFloat(number, 64)
	if v.shape != text || !ok || err != nil || !(percent > 0 && percent <= 100) {
		o.l.faultAt(v, "write it like 10%", "%s: %s must be a percentage above 0%% and at most 100%%", o.what, key)
		return 0
	}
	return percent / 100
}
