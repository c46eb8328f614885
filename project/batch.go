package project

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/duration"
)

// Batch is rows that a model scores at the times of a schedule, without being asked.
type Batch struct {
	Name     string
	Model    *Model
	Version  string // of the model: MODEL, MODEL@N or MODEL@ALIAS; what it names when a run begins
	Schedule *Schedule
	Last     time.Duration // the rows are the events of the model's source of so much event time before the instant; 0 where Files are
	Files    []string      // patterns of files with the rows, with placeholders
	Settle   time.Duration // from an instant until its run begins: what the offline log is given to have all before it
	CatchUp  int           // of instants that passed while nobody was there for them, how many are made up for: the last ones
	Given    bool          // the rows carry the inputs of feature groups: nothing is joined
	Out      string        // folder of a run's files, with placeholders
	Format   string        // FormatParquet or FormatArrow
	Keep     []string      // columns of the rows that go to the output; nil: all
	Prefix   string        // of the names of the columns that are added
	Line     int
}

// The formats of the files that a batch writes.
const (
	FormatParquet = "parquet"
	FormatArrow   = "arrow"
)

// The inputs of a batch's rows.
const (
	InputsJoined = "joined" // features as of each row's time, from the offline log
	InputsGiven  = "given"  // the rows have columns called as the model's inputs
)

// Defaults of a batch.
const (
	DefaultSettle  = 10 * time.Minute
	DefaultCatchUp = 1
	MaxCatchUp     = 1000
	MaxBatchFiles  = 100 // patterns of one batch
)

// bracesIn finds what a path of a batch has in braces.
var bracesIn = regexp.MustCompile(`\{[^{}]*\}?|\}`)

// placeholders are what it may have, each with what it stands for.
var placeholders = map[string]string{"{date}": "2006-01-02", "{instant}": "20060102T150405Z"}

// At is a path of a batch for one instant: {date} is its day and {instant} its time, both in UTC.
func At(path string, instant time.Time) string {
	for name, layout := range placeholders {
		path = strings.ReplaceAll(path, name, instant.UTC().Format(layout))
	}
	return path
}

func (l *loader) batches(entries []entry) {
	for _, e := range entries {
		b := l.batch(e)
		for _, other := range l.project.Batches {
			if b.Out != "" && filepath.Clean(other.Out) == filepath.Clean(b.Out) {
				l.fault(e.line, e.col, "", "batch %s: out is %s, which is where batch %s writes", b.Name, b.Out, other.Name)
			}
		}
		l.project.Batches = append(l.project.Batches, b)
	}
}

func (l *loader) batch(e entry) *Batch {
	o := l.object(e.value, "batch "+e.key, "model", "schedule", "last", "files", "settle", "catch_up", "inputs", "out", "format", "keep", "prefix")
	o.value.line, o.value.col = e.line, e.col
	b := &Batch{
		Name: e.key, Line: e.line, Version: o.text("model"),
		Last:    o.duration("last", 0, time.Minute),
		Settle:  o.duration("settle", DefaultSettle, 0),
		CatchUp: int(o.integer("catch_up", DefaultCatchUp, 1, MaxCatchUp)),
		Given:   o.choice("inputs", InputsJoined, InputsGiven) == InputsGiven,
		Out:     o.textOr("out", "scored/"+e.key+"/{instant}"),
		Format:  o.choice("format", FormatParquet, FormatArrow),
		Prefix:  o.textOr("prefix", ""),
	}
	b.Model = l.batchModel(o, b.Version)
	if !o.needs("schedule", `the five fields of cron, in UTC, like "0 3 * * *" for each night at three`) {
		b.Schedule = o.schedule("schedule")
	}
	l.batchRows(o, b)
	for _, v := range o.texts("keep") {
		b.Keep = append(b.Keep, v.text)
		if b.Last > 0 && b.Model != nil && b.Model.On != nil && b.Model.On.Schema.Index(v.text) < 0 {
			l.noColumn(v, o.what+": keep", v.text, b.Model.On.Schema)
		}
	}
	if ext := filepath.Ext(b.Out); ext == ".parquet" || ext == ".arrow" {
		l.faultAt(o.get("out"), "each run makes a folder of files", "%s: out: %q is the name of a file", o.what, b.Out)
	}
	if l.checkPlaceholders(o.get("out"), o.what+": out", b.Out) {
		l.checkApart(o, b)
	}
	return b
}

var versionPattern = regexp.MustCompile(`^([1-9][0-9]{0,8}|[a-z][a-z0-9_]{0,99})$`)

// batchModel is the model whose version is named.
func (l *loader) batchModel(o object, version string) *Model {
	if version == "" {
		return nil
	}
	name, which, given := strings.Cut(version, "@")
	if given && !versionPattern.MatchString(which) {
		l.faultAt(o.get("model"), "write MODEL for its champion, MODEL@3 or MODEL@challenger", "%s: model: %q names no version of %s", o.what, which, name)
	}
	var names []string
	for _, m := range l.project.Models {
		if m.Name == name {
			return m
		}
		names = append(names, m.Name)
	}
	l.faultAt(o.get("model"), didYouMean(name, names), "%s: there is no model %q", o.what, name)
	return nil
}

// batchRows checks where the rows come from.
func (l *loader) batchRows(o object, b *Batch) {
	patterns := o.texts("files")
	for _, v := range patterns {
		l.checkPlaceholders(v, o.what+": files", v.text)
		if _, err := filepath.Match(v.text, ""); err != nil {
			l.faultAt(v, "", "%s: files: %q is no pattern", o.what, v.text)
		}
		b.Files = append(b.Files, v.text)
	}
	last, files := o.has("last"), o.has("files")
	switch {
	case o.value.partial:
	case last == files:
		l.faultAt(o.get("files"), "last: 1d for the events of the last day, files: incoming/{date}/*.parquet for files", "%s needs one of last and files, which say where the rows come from", o.what)
	case files && (len(patterns) == 0 || len(patterns) > MaxBatchFiles):
		l.faultAt(o.get("files"), "", "%s: files must be a list of 1 to %d patterns", o.what, MaxBatchFiles)
	case last && b.Given && b.Model != nil && len(b.Model.Groups()) > 0:
		l.faultAt(o.get("inputs"), "", "%s: inputs: the events of a source do not carry what comes from feature groups", o.what)
	case last && l.project.Clock == ClockEvent:
		l.faultAt(o.get("last"), "name files, or let the project have the wall clock", "%s: last counts back from the machine's time, and the project goes by the stream's", o.what)
	}
}

// checkPlaceholders finds braces that stand for nothing.
func (l *loader) checkPlaceholders(at value, where, path string) bool {
	for _, name := range bracesIn.FindAllString(path, -1) {
		if _, known := placeholders[name]; !known {
			l.faultAt(at, "one of {date}, {instant}", "%s: %q stands for nothing", where, name)
			return false
		}
	}
	return true
}

// checkApart finds instants that would write to one folder: a run would take the files of the one before it for its own.
func (l *loader) checkApart(o object, b *Batch) {
	const times = 1000
	if b.Schedule == nil {
		return
	}
	at := b.Schedule.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	for range times {
		next := b.Schedule.Next(at)
		if next.IsZero() {
			return
		}
		if At(b.Out, at) == At(b.Out, next) {
			l.faultAt(o.get("out"), "write {instant} where the time is to stand", "%s: out: the runs of %s and %s would write to one folder", o.what,
				at.UTC().Format(time.RFC3339), next.UTC().Format(time.RFC3339))
			return
		}
		at = next
	}
}

// BatchState is an applied batch.
type BatchState struct {
	Model    string `json:"model"`
	Schedule string `json:"schedule"`
	Rows     string `json:"rows"`
	Policy   string `json:"policy"`
	Output   string `json:"output"`
}

func (b *Batch) state() BatchState {
	s := BatchState{
		Model: b.Version, Schedule: b.Schedule.Text, Rows: "files " + strings.Join(b.Files, ", "),
		Policy: "begun after " + duration.Format(b.Settle) + ", at most " + strconv.Itoa(b.CatchUp) + " missed made up for",
		Output: b.Format + " in " + b.Out,
	}
	if b.Last > 0 {
		s.Rows = "events of the last " + duration.Format(b.Last)
	}
	if b.Given {
		s.Rows += ", inputs given"
	}
	if b.Keep != nil {
		s.Output += ", columns " + strings.Join(b.Keep, ",")
	}
	if b.Prefix != "" {
		s.Output += ", prefix " + b.Prefix
	}
	return s
}

func (d *differ) newBatch(name string, b BatchState) {
	d.add(ChangeCreate, "batch", name, "scored by "+b.Model+" at "+b.Schedule+": "+b.Rows+", as "+b.Output)
}

func (d *differ) batch(name string, a, b BatchState) {
	for _, setting := range []struct{ name, was, is string }{{"model", a.Model, b.Model}, {"schedule", a.Schedule, b.Schedule}, {"rows", a.Rows, b.Rows}, {"runs", a.Policy, b.Policy}} {
		if setting.was != setting.is {
			d.add(ChangeUpdate, "batch", name, setting.name+" "+setting.is+", was "+setting.was)
		}
	}
	if a.Output != b.Output {
		d.breaking(ChangeUpdate, "batch", name, b.Output+", was "+a.Output, "readers look for its files as they were: move them first, or give the batch another name")
	}
}

func (d *differ) oldBatch(name string, _ BatchState) {
	d.breaking(ChangeRemove, "batch", name, "is no longer scored", "its readers would wait for files: move them first")
}

// Batch is the batch of that name, nil when there is none.
func (p *Project) Batch(name string) *Batch {
	i := slices.IndexFunc(p.Batches, func(b *Batch) bool { return b.Name == name })
	if i < 0 {
		return nil
	}
	return p.Batches[i]
}
