package features

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

func TestExpressions(t *testing.T) {
	s := arrivals(t)
	at := time.Date(2001, 5, 20, 13, 45, 59, 0, time.UTC) // a Sunday
	r := row(at.UnixMilli(), 20.5, "LAX")
	r[seats] = schemas.IntValue(7)
	nulls := row(at.UnixMilli(), math.NaN(), "")
	for src, want := range map[string][2]any{ // of r, of nulls
		"delay":                          {20.5, nil},
		"delay + 1":                      {21.5, nil},
		"-delay * 2 - 1":                 {-42.0, nil},
		"seats / 2":                      {3.5, nil},
		"seats % 4":                      {int64(3), nil},
		"seats * seats - 1":              {int64(48), nil},
		"seats ** 2":                     {49.0, nil},
		"1 / (seats - 7)":                {nil, nil},
		"seats % (seats - 7)":            {nil, nil},
		"delay > 15":                     {true, nil},
		"delay <= 20.5":                  {true, nil},
		"15 < delay < 20":                {false, nil},
		"seats == 7":                     {true, nil},
		"seats == 7.0":                   {true, nil},
		"!cancelled":                     {true, true},
		"not cancelled and delay > 15":   {true, nil},
		"cancelled and delay > 15":       {false, false},
		"delay > 15 and cancelled":       {false, false},
		"delay > 15 or !cancelled":       {true, true},
		"delay > 30 or cancelled":        {false, nil},
		"destination == 'LAX'":           {true, nil},
		"destination != \"LAX\"":         {false, nil},
		"destination in ['SFO', 'LAX']":  {true, nil},
		"seats not in [1, 2]":            {true, nil},
		"destination startsWith 'L'":     {true, nil},
		"destination contains 'Z'":       {false, nil},
		"destination matches '^L.X$'":    {true, nil},
		"carrier == 'AA'":                {true, true},
		"delay == nil":                   {false, true},
		"delay != nil":                   {true, false},
		"delay ?? 0":                     {20.5, 0.0},
		"coalesce(seats, 3)":             {int64(7), int64(3)},
		"delay > 15 ? 1 : 0":             {int64(1), nil},
		"cancelled ? seats : 0.5":        {0.5, 0.5},
		"hour(arrived)":                  {int64(13), int64(13)},
		"minute(arrived)":                {int64(45), int64(45)},
		"weekday(arrived)":               {int64(6), int64(6)},
		"day(arrived)":                   {int64(20), int64(20)},
		"month(arrived)":                 {int64(5), int64(5)},
		"abs(-delay)":                    {20.5, nil},
		"abs(seats - 10)":                {int64(3), nil},
		"min(seats, 9, 3)":               {int64(3), nil},
		"max(delay, seats)":              {20.5, nil},
		"log1p(seats - 7)":               {0.0, nil},
		"log(seats - 8)":                 {nil, nil},
		"sqrt(seats + 2)":                {3.0, nil},
		"floor(delay)":                   {20.0, nil},
		"lower(destination)":             {"lax", nil},
		"len(destination)":               {int64(3), nil},
		"(arrived - arrived) == 0":       {true, true},
		"hour(arrived + 3600000)":        {int64(14), int64(14)},
		"round(haversine(0, 0, 0, 180))": {20015.0, 20015.0},
		"9223372036854775807 + seats":    {nil, nil},
		"9223372036854775807 * 2":        {nil, nil},
		"seats == 9007199254740993":      {false, nil},
		"seats + 9007199254740986 == 9007199254740992": {false, nil},
	} {
		x, err := compileAny(src, s)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		for i, r := range []schemas.Row{r, nulls} {
			v, err := x.Eval(r)
			if err != nil || v.Any() != want[i] {
				t.Errorf("%s is %v (%v), want %v", src, v.Any(), err, want[i])
			}
			if !v.IsNull() && v.Kind() != x.Kind() {
				t.Errorf("%s is declared %v and gives %v", src, x.Kind(), v.Kind())
			}
			if x.term.num != nil {
				f, ok := x.term.num(r)
				if g, also := v.Float(); ok != also || ok && f != g {
					t.Errorf("%s is %v (%v) as a number, %v as a value", src, f, ok, v.Any())
				}
			}
		}
	}
}

func TestWeekdaysAndHoursBefore1970(t *testing.T) {
	s := arrivals(t)
	for _, day := range []int64{-3, -1, 0, 1, 4, 11000, -11001} {
		at := time.UnixMilli(day*24*hour + 7*hour + 1).UTC()
		for src, want := range map[string]int64{"weekday(arrived)": (int64(at.Weekday()) + 6) % 7, "hour(arrived)": int64(at.Hour()), "month(arrived)": int64(at.Month())} {
			x, err := compileAny(src, s)
			if err != nil {
				t.Fatal(err)
			}
			if v, _ := x.Eval(row(at.UnixMilli(), 0, "")); v.Int() != want {
				t.Errorf("%s of %s is %d, want %d", src, at, v.Int(), want)
			}
		}
	}
}

func TestWrongExpressionsAreRefused(t *testing.T) {
	s := arrivals(t)
	for src, want := range map[string]string{
		"dely > 1":                       `no column "dely" (did you mean "delay"?)`,
		"delay >":                        "at character",
		"origin + 1":                     `"+" needs numbers, not string and int`,
		"origin > 1":                     "compares string with int",
		"delay and true":                 `"and" needs bools`,
		"!delay":                         `delay is float, "!" needs bool`,
		"hours(arrived)":                 `no function "hours" (did you mean "hour"?)`,
		"hour(delay)":                    "hour takes one time",
		"now()":                          `there is no function "now"`,
		"abs(origin)":                    "abs takes numbers, not string",
		"coalesce(delay, origin)":        "mixes float and string",
		"carrier == 'AX'":                `carrier is never "AX" (did you mean "AA"?)`,
		"carrier in ['DL', 'zzzzz']":     `carrier is never "zzzzz"`,
		"map([1], # + 1)":                "there is no function",
		"nil":                            "is always null",
		"delay < nil":                    "only be compared by",
		"delay in origin":                "needs a list",
		"origin matches '('":             "compiling the pattern",
		"delay ? 1 : 2":                  "a condition is bool",
		"origin[0]":                      "no column",
		"let x = 1; x":                   "not supported",
		strings.Repeat("1+", 4000) + "1": "longer than",
	} {
		if x, err := compileAny(src, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, %v, want %q", src, x, err, want)
		}
	}
	for src, want := range map[string]schemas.Kind{"origin": schemas.Null, "delay": schemas.Bool, "delay > 1": schemas.String, "arrived": schemas.Float} {
		if _, err := CompileExpression(src, s, want); err == nil || !strings.Contains(err.Error(), "is needed") {
			t.Errorf("%s as %v: %v", src, want, err)
		}
	}
	for src, want := range map[string]schemas.Kind{"origin": schemas.String, "seats": schemas.Float, "delay > 1": schemas.Null, "cancelled": schemas.Bool} {
		if _, err := CompileExpression(src, s, want); err != nil {
			t.Errorf("%s as %v: %v", src, want, err)
		}
	}
}

func TestExpressionsSayWhatTheyRead(t *testing.T) {
	x, err := CompileExpression("seats + delay > 15 && delay < 3", arrivals(t), schemas.Bool)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(x.Columns(), " "); got != "delay seats" || x.Kind() != schemas.Bool || !strings.HasPrefix(x.Source(), "seats +") {
		t.Errorf("columns %q, kind %v, source %q", got, x.Kind(), x.Source())
	}
}

func FuzzExpression(f *testing.F) {
	s := arrivals(f)
	for _, src := range []string{"delay > 15", "!cancelled", "coalesce(delay, 0) / seats", "destination in ['a']", "hour(arrived) ?? 3", "origin matches 'a+'"} {
		f.Add(src)
	}
	r, nulls := row(0, 3, "LAX"), row(0, math.NaN(), "")
	f.Fuzz(func(t *testing.T, src string) {
		x, err := compileAny(src, s)
		if err != nil {
			return
		}
		for _, r := range []schemas.Row{r, nulls} {
			if v := x.value(r); !v.IsNull() && v.Kind() != x.Kind() {
				t.Errorf("%q is declared %v and gives %v", src, x.Kind(), v.Kind())
			}
		}
	})
}
