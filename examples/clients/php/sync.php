<?php
// Sends a batch through syncgate with PHP's curl extension. Run: php sync.php
declare(strict_types=1);

const BATCH = ['form' => 'setCustomer', 'data' => [['fkey' => 'C-1001', 'name' => 'Example Ltd']]];

final class Gateway
{
    private CurlHandle $curl; // Kept, and with it the connection, from call to call.
    private string $url;
    private ?string $token = null;

    public function __construct()
    {
        $this->url = getenv('SYNCGATE_URL') ?: 'https://127.0.0.1:8443';
        $this->curl = curl_init();
        curl_setopt_array($this->curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 120]);
        if (getenv('SYNCGATE_CA')) {
            curl_setopt($this->curl, CURLOPT_CAINFO, getenv('SYNCGATE_CA'));
        }
    }

    public function sync(array $batch): string
    {
        if ($this->token === null) {
            $this->logIn();
        }
        [$status, $answer] = $this->send($batch);
        if ($status === 401) {
            $this->logIn(); // The token has expired or was revoked: get a new one, try once more.
            [$status, $answer] = $this->send($batch);
        }
        if ($status < 200 || $status > 299) {
            throw new RuntimeException("call failed with status $status: $answer");
        }
        return $answer;
    }

    private function logIn(): void
    {
        [$status, $answer] = $this->post('/api/getToken', [
            'username' => getenv('SYNCGATE_USER') ?: '',
            'password' => getenv('SYNCGATE_PASSWORD') ?: '',
        ]);
        if ($status !== 200) {
            throw new RuntimeException("log-in failed: $answer");
        }
        $this->token = json_decode($answer, true, 32, JSON_THROW_ON_ERROR)['token']['accesstoken'];
    }

    private function send(array $batch): array
    {
        return $this->post('/api/SyncData', $batch, ["Authorization: Bearer {$this->token}"]);
    }

    /** @return array{int, string} status and body */
    private function post(string $path, array $body, array $headers = []): array
    {
        curl_setopt_array($this->curl, [
            CURLOPT_URL => $this->url . $path,
            CURLOPT_POSTFIELDS => json_encode($body, JSON_THROW_ON_ERROR),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json', ...$headers],
        ]);
        $answer = curl_exec($this->curl);
        if ($answer === false) {
            throw new RuntimeException('no answer: ' . curl_error($this->curl));
        }
        return [curl_getinfo($this->curl, CURLINFO_RESPONSE_CODE), $answer];
    }
}

try {
    $gateway = new Gateway();
    for ($call = 0; $call < (int) (getenv('SYNCGATE_CALLS') ?: 1); $call++) {
        echo $gateway->sync(BATCH), "\n";
    }
} catch (RuntimeException | JsonException $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
