package consistency

import (
	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// version is that of what is looked up, as a prediction's positions have it.
func (l *lookup) version() string {
	if l.own != nil {
		return l.group.Version + project.RequestMark
	}
	return l.group.Version
}

// ownEvent makes the event that asked out of the prediction, which keeps the text of its columns; nil where the group's source does not take
// it. upTo is the position that the group was read at.
func (l *lookup) ownEvent(p *schemas.Prediction, upTo []int64) (*features.OwnEvent, error) {
	event := make(schemas.Row, len(l.on.Schema.Columns))
	for _, n := range p.Request {
		i := l.on.Schema.Index(n.Name)
		if i < 0 {
			continue // the source had it then
		}
		var err error
		if event[i], err = schemas.ParseText(n.Text, l.on.Schema.Columns[i].Kind); err != nil {
			return nil, err
		}
	}
	own := &features.OwnEvent{Time: p.At}
	if partition, offset, ok := p.Record(); ok {
		if t := l.on.TimeIndex(); t >= 0 && !event[t].IsNull() {
			own.Time = event[t].Int()
		}
		own.Applied = l.own.Same && offset < offsetAt(upTo, partition)
	}
	var takes bool
	if own.Row, takes = l.own.Row(event, own.Time, nil); !takes {
		return nil, nil
	}
	return own, nil
}
