package consistency

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// Report is the outcome of a check.
type Report struct {
	Project     string     `json:"project"`
	Sample      string     `json:"sample"`
	Predictions int        `json:"predictions"` // looked at
	Entities    int        `json:"entities"`    // of the sample, with reads
	Events      int        `json:"events"`      // of these entities, replayed
	Reads       int        `json:"reads"`       // compared: one entity for one prediction
	Skipped     Skipped    `json:"skipped"`
	Features    []*Feature `json:"features"` // by name

	byName   map[string]*Feature
	examples int
}

// Skipped counts what could not be compared.
type Skipped struct {
	Pending      int `json:"pending"`       // reads ahead of the offline files
	OtherVersion int `json:"other_version"` // reads of another version of the group, or with include_request set otherwise
	Unread       int `json:"unread"`        // reads and inputs that failed when they were served
	Overridden   int `json:"overridden"`    // inputs that the request gave itself
	Merged       int `json:"merged"`        // reads of groups on merged sources, which are not compared
	Unnamed      int `json:"unnamed"`       // categories by codes of which it is not known what they stood for: no model answered, or this registry does not have it
	Unreadable   int `json:"unreadable"`    // records of the predictions topic that are no predictions of this version, or of other columns
}

// Feature is what the comparison of one feature came to.
type Feature struct {
	Name       string    `json:"name"` // group.output
	Compared   int       `json:"compared"`
	Mismatched int       `json:"mismatched"` // both have a value and it is another; or neither has, for different reasons
	Missing    int       `json:"missing"`    // only one of the two has a value
	SMAPE      float64   `json:"smape"`      // symmetric mean absolute percentage error as a ratio, 0 to 2, over those with both values
	Examples   []Example `json:"examples,omitempty"`

	errors float64
	pairs  int
}

// Example is one difference.
type Example struct {
	Prediction string `json:"prediction"`
	Entity     string `json:"entity"`
	At         int64  `json:"at"`         // Unix milliseconds
	Served     string `json:"served"`     // a number, or the status that took its place
	Recomputed string `json:"recomputed"` // the same
}

func newReport(project string, cfg Config) *Report {
	return &Report{Project: project, Sample: cfg.Sample.String(), Features: []*Feature{}, byName: map[string]*Feature{}, examples: cfg.Examples}
}

func (r *Report) feature(name string) *Feature {
	f := r.byName[name]
	if f == nil {
		f = &Feature{Name: name}
		r.byName[name] = f
	}
	return f
}

func (r *Report) finish() {
	r.Features = slices.SortedFunc(maps.Values(r.byName), func(a, b *Feature) int { return cmp.Compare(a.Name, b.Name) })
	for _, f := range r.Features {
		if f.pairs > 0 {
			f.SMAPE = f.errors / float64(f.pairs)
		}
	}
}

// both takes a pair of values into the error: 2|a-b| / (|a|+|b|), of two zeros 0.
func (f *Feature) both(served, recomputed float64, present bool) {
	if !present {
		return
	}
	f.pairs++
	if served != recomputed {
		f.errors += 2 * math.Abs(served-recomputed) / (math.Abs(served) + math.Abs(recomputed))
	}
}

func (f *Feature) example(most int, e Example) {
	if len(f.Examples) < most {
		f.Examples = append(f.Examples, e)
	}
}

// Different is the share of compared values that are mismatched or missing.
func (f *Feature) Different() float64 {
	if f.Compared == 0 {
		return 0
	}
	return float64(f.Mismatched+f.Missing) / float64(f.Compared)
}

// Verdict is nil when no feature's share of different values is above the tolerance (0 to 1). NotFound means that nothing could be
// compared, which says nothing at all; Refused names the worst feature.
func (r *Report) Verdict(tolerance float64) error {
	if r.Reads == 0 {
		return failure.New(failure.NotFound, r.Project, "no read could be compared: %d predictions looked at, %d entities in the sample %s, %d reads ahead of the offline files",
			r.Predictions, r.Entities, r.Sample, r.Skipped.Pending).WithHint("%s", r.nothing())
	}
	var worst *Feature
	different := 0
	for _, f := range r.Features {
		if f.Different() > tolerance {
			different++
			if worst == nil || f.Different() > worst.Different() {
				worst = f
			}
		}
	}
	if worst == nil {
		return nil
	}
	return failure.New(failure.Refused, worst.Name, "%d of %d values are not what the offline log gives (SMAPE %.3g), as are those of %d other features",
		worst.Mismatched+worst.Missing, worst.Compared, worst.SMAPE, different-1).
		WithHint("millrace inspect shows the entities named above; rebuild the group's state if it is wrong")
}

// nothing says what to do when there was nothing to compare.
func (r *Report) nothing() string {
	switch {
	case r.Predictions == 0:
		return "are there predictions, and is --since not too late?"
	case r.Skipped.Pending > 0:
		return "the offline files are written every few seconds: try again"
	case r.Skipped.OtherVersion > 0:
		return "they were made with other definitions of the groups: check the version of the project that made them"
	case r.Skipped.Merged > 0:
		return "the groups that were read are on merged sources, which this check does not compute again"
	default:
		return "take a larger sample: --sample 1 has every entity"
	}
}

// side is a value as an example shows it: a number, or the name of a category.
func side(status string, number float64, categories *project.Categories) string {
	switch names := categories.Names(); {
	case status != statusPresent:
		return status
	case number >= 0 && number < float64(len(names)):
		return names[int(number)]
	}
	return strconv.FormatFloat(number, 'g', -1, 64)
}
