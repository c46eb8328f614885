package project

import (
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// Project is a checked project folder: everything in it resolves, compiles and has its type.
type Project struct {
	Dir         string            // the folder
	Files       map[string]string // the text of the project file and of what it names, by path in the folder: LoadFiles reads them again
	Name        string
	TopicPrefix string // before the names of own and keyed topics, never of the user's
	Partitions  int32  // of own topics, and of the sources that do not say
	Clock       string // ClockWall or ClockEvent
	Sources     []*Source
	Tables      []*Table
	Groups      []*Group
	Models      []*Model
	Batches     []*Batch
}

// The clocks a project can run by.
const (
	ClockWall  = "wall"  // now is the machine's time
	ClockEvent = "event" // now is the newest event time of the stream: for a replayed past
)

// Source is a topic of the user's with the schema of its records.
type Source struct {
	Name, Topic string
	Schema      *schemas.Schema // of its rows: the columns of its records, then those that are derived
	SchemaFile  string          // relative to Dir
	Format      schemas.Format
	Key, Time   string // columns: the record key, the event time
	Partitioner string // PartitionerMurmur2, PartitionerCRC32 or PartitionerUnknown
	Lateness    time.Duration
	Future      time.Duration // events further than this ahead of the clock are dead letters; 0 accepts all
	Partitions  int32         // created with; an existing topic's own count is adopted
	Enrichments []Enrichment
	Derived     []Derived
	Parts       []*Part              // of a source that is merged of others and has no topic, key and files of its own; else nil
	Of          *Group               // of a source that is what this group gives out; else nil
	Where       *features.Expression // what is not an event of the source: groups, models and labels pass it over; nil takes every record
	OfflineBy   string               // how the files of its events are laid out: OfflineByDay or OfflineByMonth
	ofColumns   []int                // of a chained source: columns of its group's source
	ofOutputs   []int                // and outputs of the group
	Line        int
	col         int
}

// The layouts of offline files: how much event time a folder spans.
const (
	OfflineByDay   = "day"
	OfflineByMonth = "month" // for a history of years that is thin: a file costs as much as thousands of its rows
)

// What is known of how a source's producers choose partitions.
const (
	PartitionerUnknown = "unknown" // groups re-key through a topic of their own
	PartitionerMurmur2 = "murmur2" // the Java client's and franz-go's: groups on the source's key read it directly
	PartitionerCRC32   = "crc32"   // librdkafka's (confluent-kafka in Python, Go and .NET, kcat): the same
)

// TimeIndex is the event time's index in the schema.
func (s *Source) TimeIndex() int { return s.Schema.Index(s.Time) }

// KeyIndex is the record key's index in the schema.
func (s *Source) KeyIndex() int { return s.Schema.Index(s.Key) }

// Group is a feature group with its place in the stream.
type Group struct {
	*features.Group
	Source     *Source
	KeyedTopic string // "<prefix><group>.keyed", or the source's topic when Direct
	Direct     bool   // the source is already keyed and partitioned by the entity
	Offline    OfflineSettings
	Flush      time.Duration // at most so long between an event and its state in Redis
	col        int
}

// Partitioner is how the group's entities are spread over the partitions of the topic that it is computed from.
func (g *Group) Partitioner() string {
	if g.Direct {
		return g.Source.Partitioner
	}
	return PartitionerMurmur2 // of our own keyed topics
}

// OfflineSettings says how often a group's values are written offline.
type OfflineSettings struct {
	Every      time.Duration // event time between two rows of one entity
	EveryEvent bool          // a row for every event instead
	None       bool          // no rows
}

// Model is a model: what asks for a score, what goes into it, what it is to foretell, and the rules of its life.
type Model struct {
	Name    string
	On      *Source
	Task    model.Task // what the score means: binary, regression, poisson or multiclass
	Inputs  []Input
	Label   Label
	Train   Train
	Gates   []Gate
	Serve   Serve
	Monitor Monitor
	Line    int
}

// Groups is the feature groups that the model's inputs are read from, each once, in the order of their first input.
func (m *Model) Groups() []*Group {
	var groups []*Group
	seen := map[*Group]bool{}
	for _, in := range m.Inputs {
		if in.Group != nil && !seen[in.Group] {
			seen[in.Group] = true
			groups = append(groups, in.Group)
		}
	}
	return groups
}

// Input is one input of a model: a group's output, a column of the source it is on, or an expression over that source; exactly one.
type Input struct {
	Name   string    // "<group>.<output>", the column's name, or the name given to the expression
	Group  *Group    // nil when it is not a group's output
	Output int       // index in Group.Outputs; -1 without Group
	Entity []int     // for each of Group's entity columns the index in On.Schema of the column it is read by; nil without Group
	Own    *OwnEvent // how the event that asks is merged into what is read of Group; nil where it is not
	Column int       // index in On.Schema; -1 when it is not a column
	Expr   *features.Expression

	Categories *Categories // of a text, whose codes are the input; nil of a number

	Required bool // without it the answer is the fallback's
	Line     int
	col      int
}

// Label is what a model is to foretell: for a row of the model's source, the value of the joined row of another, when it comes in time.
type Label struct {
	Source  *Source
	Join    string               // a column of both sources
	Value   *features.Expression // of kind Bool; numeric of a regression or of counts, String of a multiclass model
	Within  time.Duration        // event time from the asking row to the label's
	Classes []string             // what Value can be, of a multiclass model; else nil
	Line    int
}

// The metrics of an evaluation, as gates and Train.Metric name them.
const (
	MetricAUC              = "auc"
	MetricLogLoss          = "log_loss"
	MetricBrier            = "brier"
	MetricCalibrationError = "calibration_error" // expected calibration error, 10 quantile bins
	MetricVersusChampion   = "versus_champion"   // Train.Metric of the candidate less the champion's on the same rows, positive when better
	MetricRows             = "rows"              // held-out rows

	MetricRMSE            = "rmse"             // root of the mean squared error
	MetricMAE             = "mae"              // mean absolute error
	MetricPoissonDeviance = "poisson_deviance" // mean of 2*(y*ln(y/score) - y + score)
	MetricAccuracy        = "accuracy"         // share of rows whose class has the highest score
	MetricMacroAUC        = "macro_auc"        // mean over the classes of the area under the curve of one against the rest
)

// Gate is a bound that a candidate must keep to be promoted.
type Gate struct {
	Metric string
	Op     string // >=, >, <= or <
	Bound  float64
	Line   int
}

// Monitor is how a model is watched.
type Monitor struct {
	Window     time.Duration // event time of one look
	MinRows    int           // a window with fewer is insufficient, neither good nor bad
	Features   string        // statistic over the inputs: StatisticPSI
	Prediction string        // statistic over the scores: StatisticPSI
	Exclude    []string      // inputs that are not watched
	MinColumns int           // columns that must have drifted for a window to count
	After, Of  int           // drift is confirmed when After of the last Of windows count
	Cooldown   time.Duration // event time after a retrain request in which no other is made
}

// StatisticPSI is the population stability index.
const StatisticPSI = "psi"

// Source is the source of that name, nil when there is none.
func (p *Project) Source(name string) *Source {
	for _, s := range p.Sources {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Group is the feature group of that name, nil when there is none.
func (p *Project) Group(name string) *Group {
	for _, g := range p.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Model is the model of that name, nil when there is none.
func (p *Project) Model(name string) *Model {
	for _, m := range p.Models {
		if m.Name == name {
			return m
		}
	}
	return nil
}
