// Sends a batch through syncgate with HttpWebRequest, on .NET Framework 4.6 or later and on Mono.
// Mono: mcs -r:System.Runtime.Serialization Sync.cs && mono Sync.exe
using System;
using System.IO;
using System.Linq;
using System.Net;
using System.Net.Security;
using System.Runtime.Serialization;
using System.Runtime.Serialization.Json;
using System.Security.Cryptography.X509Certificates;
using System.Text;

[DataContract]
class Credentials
{
    [DataMember] public string username;
    [DataMember] public string password;
}

[DataContract]
class LoginAnswer
{
    [DataMember] public Token token = null;
}

[DataContract]
class Token
{
    [DataMember] public string accesstoken = null;
}

class Answer
{
    public int Status;
    public string Body;
}

class Gateway
{
    readonly string url = Program.Setting("SYNCGATE_URL", "https://127.0.0.1:8443");
    readonly X509Certificate2 pinned;
    string token;

    public Gateway()
    {
        ServicePointManager.SecurityProtocol = SecurityProtocolType.Tls12;
        ServicePointManager.Expect100Continue = false; // Else each call waits for a go-ahead.
        var path = Program.Setting("SYNCGATE_CA", "");
        if (path != "") pinned = new X509Certificate2(path);
    }

    public string Sync(string batch)
    {
        if (token == null) LogIn();
        var answer = Post("/api/SyncData", batch, token);
        if (answer.Status == 401)
        {
            LogIn(); // The token has expired or was revoked: get a new one and try once more.
            answer = Post("/api/SyncData", batch, token);
        }
        if (answer.Status < 200 || answer.Status > 299)
            throw new Exception("call failed with status " + answer.Status + ": " + answer.Body);
        return answer.Body;
    }

    void LogIn()
    {
        var credentials = new Credentials
        {
            username = Program.Setting("SYNCGATE_USER", ""),
            password = Program.Setting("SYNCGATE_PASSWORD", ""),
        };
        var body = new MemoryStream();
        new DataContractJsonSerializer(typeof(Credentials)).WriteObject(body, credentials);
        var answer = Post("/api/getToken", Encoding.UTF8.GetString(body.ToArray()), null);
        if (answer.Status != 200) throw new Exception("log-in failed: " + answer.Body);
        var login = (LoginAnswer)new DataContractJsonSerializer(typeof(LoginAnswer))
            .ReadObject(new MemoryStream(Encoding.UTF8.GetBytes(answer.Body)));
        token = login.token.accesstoken;
    }

    Answer Post(string path, string body, string token)
    {
        var request = (HttpWebRequest)WebRequest.Create(url + path);
        request.Method = "POST";
        request.ContentType = "application/json";
        request.Timeout = 120000;
        if (pinned != null) request.ServerCertificateValidationCallback = Trusts;
        if (token != null) request.Headers["Authorization"] = "Bearer " + token;
        var bytes = Encoding.UTF8.GetBytes(body);
        request.ContentLength = bytes.Length;
        using (var stream = request.GetRequestStream()) stream.Write(bytes, 0, bytes.Length);
        using (var response = Respond(request))
        using (var reader = new StreamReader(response.GetResponseStream(), Encoding.UTF8))
            return new Answer { Status = (int)response.StatusCode, Body = reader.ReadToEnd() };
    }

    // A status of 400 or more comes as an exception; here it is an answer like others.
    static HttpWebResponse Respond(HttpWebRequest request)
    {
        try
        {
            return (HttpWebResponse)request.GetResponse();
        }
        catch (WebException error) when (error.Response != null)
        {
            return (HttpWebResponse)error.Response;
        }
    }

    // Needed only for a self-signed certificate: trusts that very one. For a company's own CA leave
    // SYNCGATE_CA out and add the CA to the system's store (Mono: cert-sync --user ca.pem): in this
    // callback Mono does not say whether the name in the certificate is the server's.
    bool Trusts(object sender, X509Certificate shown, X509Chain chain, SslPolicyErrors errors)
    {
        if (errors == SslPolicyErrors.None) return true;
        return errors == SslPolicyErrors.RemoteCertificateChainErrors
            && shown.GetRawCertData().SequenceEqual(pinned.RawData)
            && DateTime.Now < pinned.NotAfter;
    }
}

static class Program
{
    const string Batch =
        "{\"form\":\"setCustomer\",\"data\":[{\"fkey\":\"C-1001\",\"name\":\"Example Ltd\"}]}";

    static int Main()
    {
        try
        {
            var gateway = new Gateway();
            for (var call = int.Parse(Setting("SYNCGATE_CALLS", "1")); call > 0; call--)
                Console.WriteLine(gateway.Sync(Batch));
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine(error.GetBaseException().Message);
            return 1;
        }
    }

    public static string Setting(string name, string standard)
    {
        return Environment.GetEnvironmentVariable(name) ?? standard;
    }
}
