package features

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/schemas"
)

// call is a parsed aggregate such as "quantile(delay, 0.95)".
type call struct {
	name       string
	aggregate  aggregate
	argument   *Expression // nil where rows are counted
	parameters []float64
}

// ratioName is the function that divides two aggregates, ratio(sum(a), count()).
const ratioName = "ratio"

// parseCalls reads an aggregate, or of a ratio two.
func parseCalls(src string, s *schemas.Schema) ([]call, error) {
	name, args, err := splitCall(src)
	if err != nil {
		return nil, err
	}
	if name != ratioName {
		c, err := parseCall(src, s)
		return []call{c}, err
	}
	if len(args) != 2 {
		return nil, fmt.Errorf("%s takes (aggregate, aggregate), not %d arguments", ratioName, len(args))
	}
	calls := make([]call, 2)
	for i, arg := range args {
		if calls[i], err = parseCall(arg, s); err != nil {
			return nil, fmt.Errorf("%s: %w", ratioName, err)
		}
		if kind := calls[i].kind(); !kind.Numeric() {
			return nil, fmt.Errorf("%s: %s is %s, a number is needed", ratioName, arg, kind)
		}
	}
	return calls, nil
}

// splitCall takes a call apart, into the function's name and its arguments.
func splitCall(src string) (name string, args []string, err error) {
	text := strings.TrimSpace(src)
	open := strings.IndexByte(text, '(')
	if open > 0 && !strings.Contains(text, ")") {
		return "", nil, fmt.Errorf("%q has no closing parenthesis: within {} or [] of YAML a comma ends the value, put all of it in quotes", src)
	}
	if open <= 0 || !strings.HasSuffix(text, ")") {
		return "", nil, fmt.Errorf("%q is no aggregate, write one like mean(column)", src)
	}
	if args, err = splitArguments(text[open+1 : len(text)-1]); err != nil {
		return "", nil, fmt.Errorf("%q: %w", src, err)
	}
	return strings.TrimSpace(text[:open]), args, nil
}

func parseCall(src string, s *schemas.Schema) (call, error) {
	name, args, err := splitCall(src)
	if err != nil {
		return call{}, err
	}
	c := call{name: name}
	var known bool
	if c.aggregate, known = aggregates[c.name]; !known {
		return call{}, fmt.Errorf("%s", unknown("aggregate", c.name, aggregates))
	}
	if err := c.takeArguments(args, s); err != nil {
		return call{}, err
	}
	return c, nil
}

func (c *call) takeArguments(args []string, s *schemas.Schema) error {
	most := 1 + len(c.aggregate.parameters)
	least := most
	if c.aggregate.argument == optionalArgument {
		least--
	}
	if len(args) < least || len(args) > most {
		return fmt.Errorf("%s takes %s, not %d arguments", c.name, c.signature(), len(args))
	}
	parameters := args[len(args)-len(c.aggregate.parameters):]
	if err := c.takeParameters(parameters); err != nil || len(args) == len(parameters) {
		return err
	}
	var err error
	if c.argument, err = compileAny(args[0], s); err != nil {
		return err
	}
	kind := c.argument.Kind()
	switch {
	case c.aggregate.argument == numberArgument && !kind.Numeric():
		return fmt.Errorf("%s needs a number, %q is %s", c.name, args[0], kind)
	case c.aggregate.argument == orderedArgument && !kind.Numeric() && kind != schemas.Time:
		return fmt.Errorf("%s needs a number or a time, %q is %s", c.name, args[0], kind)
	}
	return nil
}

func (c *call) takeParameters(args []string) error {
	for i, text := range args {
		p, err := c.aggregate.parameters[i].parse(text)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		c.parameters = append(c.parameters, p)
	}
	if c.aggregate.check != nil {
		return c.aggregate.check(c.parameters)
	}
	return nil
}

func (c *call) signature() string {
	var names []string
	for _, p := range c.aggregate.parameters {
		names = append(names, p.name)
	}
	if c.aggregate.argument == optionalArgument {
		return "(" + strings.Join(append([]string{"[column or expression]"}, names...), ", ") + ")"
	}
	return "(" + strings.Join(append([]string{"column or expression"}, names...), ", ") + ")"
}

// kind is that of the aggregate's value.
func (c *call) kind() schemas.Kind { return c.aggregate.kind(c.argumentKind()) }

// argumentKind is Null where rows are counted.
func (c *call) argumentKind() schemas.Kind {
	if c.argument == nil {
		return schemas.Null
	}
	return c.argument.Kind()
}

// state is what the call keeps.
func (c *call) state() (name string, fixed fixedState, growing growingState) {
	return c.aggregate.state(stateOf{kind: c.argumentKind(), parameters: c.parameters})
}

// canonical is the call in one spelling, for the group's version.
func (c *call) canonical() string {
	parts := make([]string, 0, 1+len(c.parameters))
	if c.argument != nil {
		parts = append(parts, c.argument.canonical)
	}
	for _, p := range c.parameters {
		parts = append(parts, strconv.FormatFloat(p, 'g', -1, 64))
	}
	return c.name + "(" + strings.Join(parts, ", ") + ")"
}

// splitArguments cuts at the commas that are not inside brackets or quotes. No text is no argument.
func splitArguments(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var args []string
	depth, start := 0, 0
	quote := byte(0)
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case quote != 0:
			if b == '\\' && quote != '`' {
				i++
			} else if b == quote {
				quote = 0
			}
		case b == '"' || b == '\'' || b == '`':
			quote = b
		case b == '(' || b == '[' || b == '{':
			depth++
		case b == ')' || b == ']' || b == '}':
			if depth--; depth < 0 {
				return nil, fmt.Errorf("a bracket is closed that was not opened")
			}
		case b == ',' && depth == 0:
			args = append(args, strings.TrimSpace(text[start:i]))
			start = i + 1
		}
	}
	if depth != 0 || quote != 0 {
		return nil, fmt.Errorf("a bracket or quote is not closed")
	}
	return append(args, strings.TrimSpace(text[start:])), nil
}
