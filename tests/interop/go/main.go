// Command interop speaks to a Lockstep server through what protoc makes of proto/lockstep/v1, and nothing else of ours.
//
//	interop write HOST:PORT QUEUE   makes a session queue and sends messages to it
//	interop read HOST:PORT QUEUE    takes its next session and completes what is in it
//
// Both print what they sent or received: one JSON text of lockstep.v1.Message a line.
package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"lockstep.example/interop/lockstep"
)

const (
	callsEndAfter = 20 * time.Second
	messagesMax   = 100
	goBody        = `{"from":"Go","größe":1.5,"text":"日本語 🚀","nested":[null,true,{"a":"\u0000"}]}`
)

// program is one client of the server: it numbers its calls, so that a retry of one is known as such.
type program struct {
	queue    string
	clientID string
	counter  uint64
	admin    lockstep.AdminServiceClient
	queues   lockstep.MessagingServiceClient
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(words []string) error {
	if len(words) != 3 {
		return errors.New("usage: interop write|read HOST:PORT QUEUE")
	}
	connection, err := grpc.NewClient(words[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), callsEndAfter)
	defer cancel()
	p := &program{
		queue:    words[2],
		clientID: fmt.Sprintf("go-%d-%d", os.Getpid(), time.Now().UnixNano()),
		admin:    lockstep.NewAdminServiceClient(connection),
		queues:   lockstep.NewMessagingServiceClient(connection),
	}
	switch words[0] {
	case "write":
		return p.write(ctx)
	case "read":
		return p.read(ctx)
	default:
		return fmt.Errorf("%q is neither write nor read", words[0])
	}
}

func (p *program) requestID() *lockstep.RequestId {
	p.counter++
	return &lockstep.RequestId{ClientId: p.clientID, Counter: p.counter}
}

// write makes the queue and sends to it.
func (p *program) write(ctx context.Context) error {
	_, err := p.admin.CreateQueue(ctx, &lockstep.CreateQueueRequest{
		Name:      p.queue,
		Settings:  &lockstep.QueueSettings{RequiresSession: proto.Bool(true)},
		RequestId: p.requestID(),
	})
	if err != nil {
		return err
	}
	messages := messagesFromGo()
	sent, err := p.queues.SendMessages(ctx, &lockstep.SendMessagesRequest{
		Entity: p.queue, RequestId: p.requestID(), Messages: messages,
	})
	if err != nil {
		return err
	}
	if len(sent.GetFailures()) > 0 {
		return fmt.Errorf("not stored: %v", sent.GetFailures())
	}
	return show(messages)
}

// read takes the next session of the queue, its messages, completes them, leaves a state, and gives the session back.
func (p *program) read(ctx context.Context) error {
	accepted, err := p.queues.AcceptSession(ctx, &lockstep.AcceptSessionRequest{
		Entity: p.queue, RequestId: p.requestID(), MaxWait: durationpb.New(5 * time.Second), HolderClientId: "go",
	})
	if err != nil {
		return err
	}
	session := accepted.GetSession()
	received, err := p.queues.ReceiveMessages(ctx, &lockstep.ReceiveMessagesRequest{
		Entity: p.queue, RequestId: p.requestID(), Session: session, MaxMessages: messagesMax,
		MaxWait: durationpb.New(5 * time.Second), Mode: lockstep.ReceiveMode_RECEIVE_MODE_PEEK_LOCK,
	})
	if err != nil {
		return err
	}
	settled, err := p.queues.SettleMessages(ctx, &lockstep.SettleMessagesRequest{
		Entity: p.queue, RequestId: p.requestID(), Session: session,
		Settlements: []*lockstep.Settlement{{
			Outcome:         &lockstep.Settlement_Complete{Complete: &lockstep.Complete{}},
			SequenceNumbers: received.GetSequenceNumbers(),
		}},
	})
	if err != nil {
		return err
	}
	if len(settled.GetFailures()) > 0 {
		return fmt.Errorf("not completed: %v", settled.GetFailures())
	}
	_, err = p.queues.SetSessionState(ctx, &lockstep.SetSessionStateRequest{
		Entity: p.queue, RequestId: p.requestID(), Session: session, Value: []byte("Go was here: größe\x00\xff"),
	})
	if err != nil {
		return err
	}
	_, err = p.queues.ReleaseSession(ctx, &lockstep.ReleaseSessionRequest{
		Entity: p.queue, RequestId: p.requestID(), Session: session,
	})
	if err != nil {
		return err
	}
	return show(received.GetMessages())
}

// messagesFromGo returns one message with all that a sender may set, and the borders of what a body may be.
func messagesFromGo() []*lockstep.Message {
	session := proto.String("Sitzung größer ☃")
	bytes256 := make([]byte, 256)
	for i := range bytes256 {
		bytes256[i] = byte(i)
	}
	uuid := append([]byte(nil), bytes256[:16]...)
	return []*lockstep.Message{
		{
			MessageId: "go-1", SessionId: session, CorrelationId: "question-7", Subject: "Größe", To: "somewhere",
			ReplyTo: "answers", ReplyToSessionId: proto.String(""), ContentType: "application/json; charset=utf-8",
			Content: &lockstep.Message_Body{Body: []byte(goBody)},
			ApplicationProperties: map[string]*lockstep.PropertyValue{
				"false":        {Kind: &lockstep.PropertyValue_BoolValue{BoolValue: false}},
				"true":         {Kind: &lockstep.PropertyValue_BoolValue{BoolValue: true}},
				"int least":    {Kind: &lockstep.PropertyValue_IntValue{IntValue: math.MinInt64}},
				"int greatest": {Kind: &lockstep.PropertyValue_IntValue{IntValue: math.MaxInt64}},
				"uint":         {Kind: &lockstep.PropertyValue_UintValue{UintValue: math.MaxUint64}},
				"double":       {Kind: &lockstep.PropertyValue_DoubleValue{DoubleValue: 0.1}},
				"infinite":     {Kind: &lockstep.PropertyValue_DoubleValue{DoubleValue: math.Inf(-1)}},
				"text größe":   {Kind: &lockstep.PropertyValue_StringValue{StringValue: "日本語 🚀"}},
				"empty":        {Kind: &lockstep.PropertyValue_StringValue{StringValue: ""}},
				"bytes":        {Kind: &lockstep.PropertyValue_BytesValue{BytesValue: bytes256}},
				"uuid":         {Kind: &lockstep.PropertyValue_UuidValue{UuidValue: uuid}},
				"moment": {Kind: &lockstep.PropertyValue_TimestampValue{
					TimestampValue: &timestamppb.Timestamp{Seconds: -1, Nanos: 123_456_000},
				}},
			},
		},
		{SessionId: session, Content: &lockstep.Message_Body{Body: bytes256}},
		{SessionId: session, Content: &lockstep.Message_Body{Body: []byte{}}},
		{SessionId: session},
	}
}

// show prints messages, one a line.
func show(messages []*lockstep.Message) error {
	for _, message := range messages {
		text, err := protojson.Marshal(message)
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
	return nil
}
