<?php
// The program of hall.rs for Swoole, as docs/from-swoole.md puts them side by side: php hall.php

use Swoole\Http\Request;
use Swoole\Process;
use Swoole\Server\Task;
use Swoole\Table;
use Swoole\WebSocket\Frame;
use Swoole\WebSocket\Server;

$visits = new Table(1024);
$visits->column('visits', Table::TYPE_INT);
$visits->create();

$names = new Table(16384);
$names->column('name', Table::TYPE_STRING, 32);
$names->create();

$server = new Server('127.0.0.1', 9502);
$server->set([
    'worker_num' => 2,
    'task_worker_num' => 2,
    'task_enable_coroutine' => true,
    'max_conn' => 16384,
    'package_max_length' => 1024 * 1024,
    'heartbeat_check_interval' => 5,
    'heartbeat_idle_time' => 60,
    'max_wait_time' => 30,
    'pid_file' => 'hall.pid',
]);

$server->on('start', function (Server $server) {
    echo "the master is here: {$server->master_pid}\n";
});

$server->on('managerStart', function (Server $server) {
    echo "the manager is here: {$server->manager_pid}\n";
});

$server->on('workerStart', function (Server $server, int $workerId) use ($names) {
    if ($workerId === 0) {
        $server->tick(5000, function () use ($server, $names) {
            foreach ($server->connections as $fd) {
                if ($server->isEstablished($fd)) {
                    $server->push($fd, count($names) . ' here');
                }
            }
        });
    }
});

$server->on('open', function (Server $server, Request $request) use ($names, $visits) {
    $fd = $request->fd;
    $name = substr($request->get['name'] ?? 'somebody', 0, 32);
    $names->set((string) $fd, ['name' => $name]);
    $count = $visits->incr($name, 'visits');
    $server->push($fd, "welcome $name, visit $count");
    $server->after(3000, function () use ($server, $fd) {
        if ($server->isEstablished($fd)) {
            $server->push($fd, 'say: all hello');
        }
    });
});

$server->on('message', function (Server $server, Frame $frame) use ($names, $visits) {
    $fd = $frame->fd;
    $name = $names->get((string) $fd, 'name');
    [$word, $rest] = explode(' ', $frame->data, 2) + [1 => ''];
    switch ($word) {
        case 'all':
            foreach ($server->connections as $other) {
                if ($server->isEstablished($other)) {
                    $server->push($other, "$name: $rest");
                }
            }
            break;
        case 'note':
            $server->task(['fd' => $fd, 'note' => "$name: $rest\n"]);
            break;
        case 'visits':
            $server->push($fd, 'visits: ' . $visits->get($name, 'visits'));
            break;
        case 'bye':
            $server->disconnect($fd, 1000, 'bye');
            break;
        case 'reload':
            $server->reload();
            break;
        default:
            $server->push($fd, 'all, note, visits, bye or reload?');
    }
});

$server->on('close', function (Server $server, int $fd) use ($names) {
    $names->del((string) $fd);
});

$server->on('task', function (Server $server, Task $task) {
    file_put_contents('notes.txt', $task->data['note'], FILE_APPEND);
    $task->finish(['fd' => $task->data['fd'], 'bytes' => strlen($task->data['note'])]);
});

$server->on('finish', function (Server $server, int $taskId, array $result) {
    if ($server->isEstablished($result['fd'])) {
        $server->push($result['fd'], "noted, {$result['bytes']} bytes");
    }
});

$server->on('pipeMessage', function (Server $server, int $from, mixed $message) {
    foreach ($server->connections as $fd) {
        if ($server->isEstablished($fd)) {
            $server->push($fd, "load $message");
        }
    }
});

$server->on('workerStop', function (Server $server, int $workerId) {
    echo "worker $workerId ends\n";
});

$server->on('shutdown', function (Server $server) {
    echo "everybody has ended\n";
});

$server->addProcess(new Process(function (Process $process) use ($server) {
    while (true) {
        sleep(5);
        $server->sendMessage((string) sys_getloadavg()[0], 0);
    }
}));

$server->start();
