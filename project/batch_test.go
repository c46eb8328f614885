package project

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const batched = planned + `batches:
  nightly: {model: late@challenger, schedule: "CRON_TZ=Europe/Berlin 30 2 * * *", last: 1d, settle: 1h, catch_up: 3, keep: [flight_id]}
  files: {model: late, schedule: "@hourly", files: ["/in/{date}/*.csv", "more/{instant}.parquet"], inputs: given, out: "answers/{instant}", format: arrow, prefix: late_}
`

func TestBatch(t *testing.T) {
	p := loadText(t, batched)
	nightly, files := p.Batch("nightly"), p.Batch("files")
	wantNightly := &Batch{
		Name: "nightly", Model: p.Model("late"), Version: "late@challenger", Schedule: nightly.Schedule, Last: 24 * time.Hour, Settle: time.Hour, CatchUp: 3,
		Out: "scored/nightly/{instant}", Format: FormatParquet, Keep: []string{"flight_id"}, Line: nightly.Line,
	}
	wantFiles := &Batch{
		Name: "files", Model: p.Model("late"), Version: "late", Schedule: files.Schedule, Files: []string{"/in/{date}/*.csv", "more/{instant}.parquet"},
		Settle: DefaultSettle, CatchUp: 1, Given: true, Out: "answers/{instant}", Format: FormatArrow, Prefix: "late_", Line: files.Line,
	}
	if !reflect.DeepEqual(nightly, wantNightly) || !reflect.DeepEqual(files, wantFiles) || p.Batch("other") != nil {
		t.Errorf("nightly %+v, files %+v", nightly, files)
	}
	at := time.Date(2001, 5, 21, 2, 30, 0, 0, time.FixedZone("", 2*3600))
	if got := At("/in/{date}/{instant}-{date}", at); got != "/in/2001-05-21/20010521T003000Z-2001-05-21" {
		t.Errorf("at the instant it is %s", got)
	}
}

// TestDue has an oracle that counts the days by hand.
func TestDue(t *testing.T) {
	s, err := ParseSchedule("0 3 * * *")
	if err != nil {
		t.Fatal(err)
	}
	day := func(d, hour int) time.Time { return time.Date(2001, 5, d, hour, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		after, until time.Time
		most         int
		times        []time.Time
		passed       int
	}{
		{day(1, 2), day(1, 2), 3, nil, 0},
		{day(1, 2), day(1, 3), 3, []time.Time{day(1, 3)}, 0},
		{day(1, 3), day(2, 2), 3, nil, 0},
		{day(1, 3), day(5, 3), 3, []time.Time{day(3, 3), day(4, 3), day(5, 3)}, 1},
		{day(1, 3), day(31, 23), 1, []time.Time{day(31, 3)}, 29},
	} {
		if times, passed := s.Due(c.after, c.until, c.most); !slices.Equal(times, c.times) || passed != c.passed {
			t.Errorf("%+v: %v, %d passed", c, times, passed)
		}
	}
}

func TestPlanOfBatches(t *testing.T) {
	applied := loadText(t, batched).State()
	want := "create batch files: scored by late at @hourly: files /in/{date}/*.csv, more/{instant}.parquet, inputs given, as arrow in answers/{instant}, prefix late_\n" +
		"create batch nightly: scored by late@challenger at CRON_TZ=Europe/Berlin 30 2 * * *: events of the last 24h, as parquet in scored/nightly/{instant}, columns flight_id\n"
	if got := changes(Plan(loadText(t, batched), loadText(t, planned).State())); got != want {
		t.Errorf("declared:\n%s", got)
	}
	changed := strings.NewReplacer("last: 1d, settle: 1h", "last: 7d, settle: 2h", "@hourly", "@daily", "answers/", "scores/").Replace(batched)
	want = "update batch files: schedule @daily, was @hourly\n" +
		"update batch files: arrow in scores/{instant}, prefix late_, was arrow in answers/{instant}, prefix late_ BREAKING\n" +
		"update batch nightly: rows events of the last 7d, was events of the last 24h\n" +
		"update batch nightly: runs begun after 2h, at most 3 missed made up for, was begun after 1h, at most 3 missed made up for\n"
	if got := changes(Plan(loadText(t, changed), applied)); got != want {
		t.Errorf("changed:\n%s", got)
	}
	want = "remove batch files: is no longer scored BREAKING\nremove batch nightly: is no longer scored BREAKING\n"
	if got := changes(Plan(loadText(t, planned), applied)); got != want {
		t.Errorf("removed:\n%s", got)
	}
}
