package script

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// relative is how far a number may be off without a tolerance of its own: what another order of summing makes.
const relative = 1e-9

// matches reports whether a result is as written.
func matches(want string, got features.Result) (bool, error) {
	switch want {
	case "null", "not_found", "expired", "overflow":
		return got.Status.String() == want, nil
	case "true", "false":
		return isPresent(got, schemas.Bool) && got.Value.Bool() == (want == "true"), nil
	}
	if strings.HasPrefix(want, `"`) {
		text, err := strconv.Unquote(want)
		if err != nil {
			return false, failure.New(failure.BadProject, "", "%s is no text in double quotes", want)
		}
		return (isPresent(got, schemas.String) || isPresent(got, schemas.Bytes)) && got.Value.Str() == text, nil
	}
	if strings.HasPrefix(want, "[") || strings.HasPrefix(want, "{") {
		return isPresent(got, schemas.Composite) && got.Value.Str() == want, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, want); err == nil {
		return isPresent(got, schemas.Time) && got.Value.Int() == t.UnixMilli(), nil
	}
	return matchesNumber(want, got)
}

func matchesNumber(want string, got features.Result) (bool, error) {
	number, tolerance, tolerant := strings.Cut(want, "~")
	f, err := strconv.ParseFloat(number, 64)
	within := relative * math.Abs(f)
	if err == nil && tolerant {
		within, err = strconv.ParseFloat(tolerance, 64)
	}
	if err != nil {
		return false, failure.New(failure.BadProject, "", "%q is no number, text in double quotes, time, true, false, JSON list or map without spaces, null, not_found, expired or overflow", want)
	}
	value, ok := got.Value.Float()
	return got.Status == features.Present && ok && got.Value.Kind().Numeric() && math.Abs(value-f) <= within, nil
}

func isPresent(r features.Result, kind schemas.Kind) bool {
	return r.Status == features.Present && r.Value.Kind() == kind
}

// format writes a result as a script would.
func format(r features.Result) string {
	switch {
	case r.Status != features.Present:
		return r.Status.String()
	case r.Value.Kind() == schemas.String || r.Value.Kind() == schemas.Bytes:
		return strconv.Quote(r.Value.Str())
	default:
		return r.Value.Text()
	}
}

// parseEntity reads ATL, or origin=ATL,destination=LAX.
func parseEntity(text string, columns []string) (map[string]string, error) {
	parts, err := splitQuoted(text, ',')
	if err != nil {
		return nil, err
	}
	if len(columns) == 1 && !strings.HasPrefix(text, columns[0]+"=") {
		parts = []string{columns[0] + "=" + text}
	}
	entity := map[string]string{}
	for _, part := range parts {
		column, value, ok := strings.Cut(part, "=")
		if !ok || !slices.Contains(columns, column) {
			return nil, failure.New(failure.BadProject, "", "entity %q does not say which of %s is %q", text, strings.Join(columns, ", "), part)
		}
		if strings.HasPrefix(value, `"`) {
			if value, err = strconv.Unquote(value); err != nil {
				return nil, failure.New(failure.BadProject, "", "entity %s is not quoted as it must be", text)
			}
		}
		entity[column] = value
	}
	return entity, nil
}

// splitQuoted splits at a separator, and leaves alone what is in double quotes. Empty parts are left out.
func splitQuoted(text string, separator byte) ([]string, error) {
	var parts []string
	start, quoted := 0, false
	for i := 0; i <= len(text); i++ {
		switch {
		case i == len(text) || text[i] == separator && !quoted:
			if i > start {
				parts = append(parts, text[start:i])
			}
			start = i + 1
		case text[i] == '\\' && quoted:
			i++
		case text[i] == '"':
			quoted = !quoted
		}
	}
	if quoted {
		return nil, failure.New(failure.BadProject, "", "a double quote is not closed")
	}
	return parts, nil
}

func unknownOutput(name string, results map[string]features.Result) string {
	names := make([]string, 0, len(results))
	for n := range results {
		names = append(names, n)
	}
	slices.Sort(names)
	if near := schemas.Nearest(name, names); near != "" {
		return fmt.Sprintf("there is no output %q (did you mean %q?)", name, near)
	}
	return fmt.Sprintf("there is no output %q, only %s", name, strings.Join(names, ", "))
}
