package project

import "github.com/millrace/millrace/schemas"

// isolatedPartitions is the partition count of an isolated project's topics: more than one, so that events take all the ways there are. Under an
// event clock it is one, because each partition has its own newest event time, and what is in the future depends on it.
const isolatedPartitions = 3

// LoadIsolated is Load for a project that is to run beside itself: under another name (the project's with the suffix behind it), which is also
// the prefix of all its topics, the sources' included. Sources are read as JSON, whatever their format.
func LoadIsolated(dir, suffix string) (*Project, error) { return loadFolder(dir, suffix) }

// isolate gives the project the suffixed name, if it is loaded so.
func (l *loader) isolate() {
	if l.suffix == "" {
		return
	}
	p := l.project
	p.Name += l.suffix
	p.TopicPrefix = p.Name + "."
	p.Partitions = isolatedPartitions
	if p.Clock == ClockEvent {
		p.Partitions = 1
	}
}

// isolateSource makes a source the isolated project's own.
func (l *loader) isolateSource(s *Source) {
	if l.suffix == "" {
		return
	}
	s.Topic = l.project.TopicPrefix + s.Topic
	s.Format = schemas.JSON
	l.isolatePartitions(s)
}

func (l *loader) isolatePartitions(s *Source) {
	if l.suffix != "" {
		s.Partitions = l.project.Partitions
	}
}

// isolateTable makes the topic of a table, if it has one, the isolated project's own.
func (l *loader) isolateTable(t *Table) {
	if l.suffix != "" && t.Topic != "" {
		t.Topic, t.Format = l.project.TopicPrefix+t.Topic, schemas.JSON
	}
}
